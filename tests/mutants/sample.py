"""Which mutants a run tries, and which are known to be none."""

import random
from itertools import chain, zip_longest
from pathlib import Path

import yaml

from tests.mutants.operators import Mutant, mutants_of

__all__ = ["ROOMS", "ROOT", "equivalents", "identity", "mutants_in", "named", "sample"]

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("engine", "pipelines", "jobs", "images", "net", "api", "models", "replica", "service")
_EQUIVALENT = Path(__file__).with_name("equivalent.yaml")
_NAMED = Path(__file__).with_name("named.yaml")


def mutants_in(room: str) -> list[Mutant]:
    """List all mutants of a room of `serve_app`."""
    files = sorted((ROOT / "serve_app" / room).rglob("*.py"))
    return [mutant for file in files for mutant in mutants_of(file, ROOT)]


def sample(rooms: list[str], each: int, seed: int) -> list[Mutant]:
    """Draw mutants of each room, in turn, so that a run that is cut short has some of all."""
    drawn = []
    for room in rooms:
        found = mutants_in(room)
        drawn.append(random.Random(f"{seed} {room}").sample(found, min(each, len(found))))
    return [one for one in chain.from_iterable(zip_longest(*drawn)) if one]


def identity(mutant: Mutant) -> tuple[str, str, str]:
    """Return what names a mutant when lines move: file, text of the line, change."""
    code = (ROOT / mutant.path).read_text().splitlines()[mutant.lines.start - 1].strip()
    return mutant.path, code, str(mutant).split(": ", 1)[1]


def equivalents() -> dict[tuple[str, str, str], str]:
    """Return the mutants that no test can notice, and why."""
    rows = yaml.safe_load(_EQUIVALENT.read_text()) or []
    return {(row["path"], row["code"], row["change"]): row["why"] for row in rows}


def named() -> list[dict[str, str]]:
    """Return the faults that passed once: each with `fault`, `path`, `before`, `after`, `test`."""
    return yaml.safe_load(_NAMED.read_text())
