"""What a process of the pool does: it opens a sandbox, and then measures tests or tries mutants."""

import os
import re
import time
from pathlib import Path

from tests.mutants import reach as reaching
from tests.mutants.operators import Mutant
from tests.mutants.sample import ROOT
from tests.mutants.sandbox import Sandbox

__all__ = ["measure", "start", "try_mutant", "try_named", "unsure"]

_SLACK_S = 60  # of a run beyond five times what its tests took: start, collection, other work
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+?\.py::.+?)(?: - .*)?$", re.MULTILINE)
_sandbox: Sandbox | None = None


def start(home: str) -> None:
    """Open the sandbox of this process."""
    global _sandbox  # noqa: PLW0603 - one per process of the pool
    _sandbox = Sandbox(ROOT, Path(home) / str(os.getpid()))


def measure(file: str, record: Path, ends_at: float) -> None:
    """Measure which lines the tests of a file run, unless that is known or the time is over."""
    if not record.exists() and time.time() < ends_at:
        reaching.measure(_own(), file, record)


def _own() -> Sandbox:
    assert _sandbox, "a process of the pool has a sandbox"
    return _sandbox


def try_mutant(mutant: Mutant, names: list[str], seconds: float, ends_at: float) -> tuple[str, str]:
    """Return what became of a mutant, and the test that killed it."""
    if time.time() > ends_at:
        return "left", ""
    if not names:
        return "unreached", ""
    files = list(dict.fromkeys(name.partition("::")[0] for name in names))
    with _own().changed(mutant.path, mutant.apply):
        status, text = _own().run(["-x", *files], reaching.Chosen(names), _SLACK_S + 5 * seconds)
    assert status != 5, f"no test was found for {mutant}"
    return ("survived" if status == 0 else "killed"), (_FAILED.findall(text) or [""])[0]


def try_named(row: dict[str, str]) -> bool:
    """Return whether the test of a named fault notices it, and passes without it."""
    before, after = row["before"].encode(), row["after"].encode()
    with _own().changed(row["path"], lambda source: source.replace(before, after)):
        changed, _ = _own().run(["-x", row["test"]], reaching.Chosen(None), 120)
    whole, _ = _own().run([row["test"]], reaching.Chosen(None), 120)
    return (changed, whole) == (1, 0)


def unsure(names: list[str]) -> set[str]:
    """Return those of some tests that fail without a mutant too, in a run like theirs."""
    files = list(dict.fromkeys(name.partition("::")[0] for name in names))
    _, text = _own().run(files, reaching.Chosen(names), 600)
    return set(names) & set(_FAILED.findall(text))
