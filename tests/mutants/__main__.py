"""Puts small faults into the code and counts which the nearest fast tests notice: `make mutants`.

A sample of the faults of each room, drawn by a seed, is tried one by one in a copy of the tree. A
fault is killed if one of the tests that run its line fails. Those that survive are printed, unless
`equivalent.yaml` says why no test can notice them.
"""

import argparse
import json
import multiprocessing
import os
import re
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.mutants import reach as reaching
from tests.mutants.operators import Mutant
from tests.mutants.sample import ROOMS, ROOT, equivalents, identity, named, sample
from tests.mutants.sandbox import Sandbox

_LAST = ROOT / "build" / "mutants" / "survivors.json"
_SLACK_S = 30  # of a run beyond five times what its tests took: start, collection, other work
_sandbox: Sandbox | None = None


def _open(home: str) -> None:
    global _sandbox  # noqa: PLW0603 - one per process of the pool
    _sandbox = Sandbox(ROOT, Path(home) / str(os.getpid()))


def _measure(file: str) -> None:
    assert _sandbox, "a process of the pool has a sandbox"
    reaching.measure(_sandbox, ROOT, file)


def _try(mutant: Mutant, names: list[str], seconds: float, ends_at: float) -> tuple[str, str]:
    """Return what became of a mutant, and the test that killed it."""
    if time.time() > ends_at:
        return "left", ""
    if not names:
        return "unreached", ""
    assert _sandbox, "a process of the pool has a sandbox"
    files = list(dict.fromkeys(name.partition("::")[0] for name in names))
    with _sandbox.changed(mutant.path, mutant.apply):
        status, text = _sandbox.run(["-x", *files], reaching.Chosen(names), _SLACK_S + 5 * seconds)
    assert status != 5, f"no test was found for {mutant}"
    killers = re.findall(r"^(?:FAILED|ERROR) (\S+?\.py::.+?)(?: - .*)?$", text, re.MULTILINE)
    return ("survived" if status == 0 else "killed"), (killers or [""])[0]


def _try_named(row: dict[str, str]) -> bool:
    """Return whether the test of a named fault notices it, and passes without it."""
    assert _sandbox, "a process of the pool has a sandbox"
    before, after = row["before"].encode(), row["after"].encode()
    with _sandbox.changed(row["path"], lambda source: source.replace(before, after)):
        changed, _ = _sandbox.run(["-x", row["test"]], reaching.Chosen(None), 120)
    whole, _ = _sandbox.run([row["test"]], reaching.Chosen(None), 120)
    return (changed, whole) == (1, 0)


def _unsure(names: list[str]) -> set[str]:
    """Return those of some tests that fail without a mutant too, in a run like theirs."""
    assert _sandbox, "a process of the pool has a sandbox"
    files = list(dict.fromkeys(name.partition("::")[0] for name in names))
    _, text = _sandbox.run(files, reaching.Chosen(names), 600)
    return {name for name in names if f" {name}" in text}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("rooms", nargs="*", default=list(ROOMS), help="rooms of serve_app")
    parser.add_argument("--each", type=int, default=25, help="mutants per room")
    parser.add_argument("--seconds", type=float, default=1800, help="no new mutant after these")
    parser.add_argument("--seed", type=int, default=1, help="another number, another sample")
    parser.add_argument("--tests-s", type=float, default=10, help="seconds of tests per mutant")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--named", action="store_true", help="those of named.yaml, and no others")
    parser.add_argument("--again", action="store_true", help="only survivors of the last run")
    return parser.parse_args()


def main() -> None:
    """Measure what tests reach, try the mutants, print who survived and the scores."""
    given = _arguments()
    chosen = sample(given.rooms, given.each, given.seed)
    if given.again:
        last = {tuple(one) for one in json.loads(_LAST.read_text())}
        everything = sample(given.rooms, 10**9, given.seed)
        chosen = [mutant for mutant in everything if identity(mutant) in last]
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(prefix="mutants-") as home,
        ProcessPoolExecutor(given.processes, context, _open, (home,)) as pool,
    ):
        if given.named:
            for row, is_noticed in zip(named(), pool.map(_try_named, named()), strict=True):
                print("noticed" if is_noticed else "SURVIVED", row["fault"], flush=True)
            return
        list(pool.map(_measure, reaching.test_files(ROOT)))
        reach = reaching.Reach(ROOT)
        names = [reach.nearest(mutant, given.tests_s) for mutant in chosen]
        ends_at = time.time() + given.seconds
        print(f"{len(chosen)} mutants", flush=True)
        outcomes = list(
            pool.map(_try, chosen, names, map(reach.seconds, names), [ends_at] * len(chosen))
        )
        killers = sorted({killer for _, killer in outcomes if killer})
        unsure = pool.submit(_unsure, killers).result() if killers else set()
    _report(chosen, [("unsure" if k in unsure else what) for what, k in outcomes], given)


def _report(chosen: list[Mutant], outcomes: list[str], given: argparse.Namespace) -> None:
    known, counts, left = equivalents(), {room: Counter() for room in given.rooms}, []
    for mutant, outcome in zip(chosen, outcomes, strict=True):
        is_alive = outcome in ("survived", "unreached", "unsure")
        word = "equivalent" if is_alive and identity(mutant) in known else outcome
        counts[mutant.path.split("/")[1]][word] += 1
        if is_alive and word != "equivalent":
            left.append(identity(mutant))
            print(f"{word:9} {mutant}")
    _LAST.write_text(json.dumps(left))
    print("\nroom        tried  killed  equivalent  score")
    for room, count in counts.items():
        tried = count.total() - count["left"]
        rest = tried - count["equivalent"]
        score = f"{100 * count['killed'] / rest:.0f} %" if rest else "-"
        print(f"{room:10} {tried:6} {count['killed']:7} {count['equivalent']:11}  {score}")


if __name__ == "__main__":
    main()
