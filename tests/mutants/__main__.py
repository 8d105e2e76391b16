"""Puts small faults into the code and counts which the nearest fast tests notice: `make mutants`.

A sample of the faults of each room, drawn by a seed, is tried one by one in a copy of the tree. A
fault is killed if one of the tests that run its line fails. Those that survive are printed, unless
`equivalent.yaml` says why no test can notice them.
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat

from tests.mutants import reach as reaching
from tests.mutants import trial
from tests.mutants.operators import Mutant
from tests.mutants.sample import ROOMS, ROOT, equivalents, identity, named, sample

_LAST = ROOT / "build" / "mutants" / "survivors.json"
_ALIVE = ("survived", "unreached", "unsure")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("rooms", nargs="*", default=list(ROOMS), help="rooms of serve_app")
    parser.add_argument("--each", type=int, default=25, help="mutants per room")
    parser.add_argument("--seconds", type=float, default=3600, help="no new mutant after these")
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
    ends_at = time.time() + given.seconds
    places = reaching.records(ROOT, given.rooms)
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(prefix="mutants-") as home,
        ProcessPoolExecutor(given.processes, context, trial.start, (home,)) as pool,
    ):
        if given.named:
            for row, is_noticed in zip(named(), pool.map(trial.try_named, named()), strict=True):
                print("noticed" if is_noticed else "SURVIVED", row["fault"], flush=True)
            return
        half = ends_at - given.seconds / 2
        list(pool.map(trial.measure, places, places.values(), repeat(half)))
        reach = reaching.Reach(ROOT, places)
        unknown = sum(not place.exists() for place in places.values())
        names = [reach.nearest(mutant, given.tests_s) for mutant in chosen]
        print(f"{len(chosen)} mutants; {unknown} test files were not measured in time", flush=True)
        tries = pool.map(
            trial.try_mutant, chosen, names, map(reach.seconds, names), repeat(ends_at)
        )
        outcomes = []
        for mutant, (outcome, killer) in zip(chosen, tries, strict=True):
            outcomes.append((outcome, killer))
            if outcome in _ALIVE:
                print(f"{outcome:9} {mutant}", flush=True)
        killers = sorted({killer for _, killer in outcomes if killer})
        unsure = pool.submit(trial.unsure, killers).result() if killers else set()
    _report(chosen, [("unsure" if k in unsure else what) for what, k in outcomes], given)


def _report(chosen: list[Mutant], outcomes: list[str], given: argparse.Namespace) -> None:
    known, counts, left = equivalents(), {room: Counter() for room in given.rooms}, []
    for mutant, outcome in zip(chosen, outcomes, strict=True):
        is_alive = outcome in _ALIVE
        word = "equivalent" if is_alive and identity(mutant) in known else outcome
        counts[mutant.path.split("/")[1]][word] += 1
        if is_alive and word != "equivalent":
            left.append(identity(mutant))
            if outcome == "unsure":
                print(f"killed by a test that fails without it too: {mutant}")
    _LAST.write_text(json.dumps(left))
    print("\nroom        tried  killed  equivalent  score")
    for room, count in counts.items():
        tried = count.total() - count["left"]
        rest = tried - count["equivalent"]
        score = f"{100 * count['killed'] / rest:.0f} %" if rest else "-"
        print(f"{room:10} {tried:6} {count['killed']:7} {count['equivalent']:11}  {score}")


if __name__ == "__main__":
    main()
