"""The run for a GPU: its stages on a CPU at toy size, its budgets, and how it reads a trace."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from benchmarks.gpu.course import Course, Figures, Lacking, Stage, markdown
from benchmarks.gpu.trace import TICK, idle

ROOT = Path(__file__).parents[3]
STAGES = (
    "device",
    "parity",
    "mixed requests",
    "idle device",
    "forwards tiny",
    "attention tiny",
    "host memory",
    "fp8 tiny",
)


# What a machine of somebody else has; `packages.txt` names the rest.
THERE = ("torch", "transformers", "accelerate", "peft", "scipy", "opencv-python-headless", "pillow")
_HIDING = """
import json, runpy, sys
sys.modules.update(dict.fromkeys(json.loads(sys.argv.pop(1))))
runpy.run_module("benchmarks.gpu", run_name="__main__", alter_sys=True)
"""


def _hidden() -> set[str]:
    """Name the installed modules that a run may not need."""
    carried = (ROOT / "benchmarks" / "gpu" / "packages.txt").read_text().splitlines()
    names = {plain(name) for name in carried if not name.startswith("#")}
    left = [*THERE]
    while left:
        name = plain(left.pop())
        if name not in names:
            names.add(name)
            with contextlib.suppress(metadata.PackageNotFoundError):
                left += needs(name)
    return {
        module
        for module, owners in metadata.packages_distributions().items()
        if not {plain(owner) for owner in owners} & names and module.isidentifier()
    } - {"benchmarks", "serve_app", "training", "google"}


def needs(name: str) -> list[str]:
    asked = [Requirement(text) for text in metadata.requires(name) or []]
    return [one.name for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})]


def plain(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, dict]]:
    """What is printed, and the files of all stages by their names."""
    folder = tmp_path_factory.mktemp("gpu")
    options = ["--device", "cpu", "--size", "tiny", "--out", str(folder)]
    done = subprocess.run(
        [sys.executable, "-c", _HIDING, json.dumps(sorted(_hidden())), *options],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    files = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return done.stdout, {told["stage"]: told for told in files}


@pytest.mark.long  # most of a minute
def test_toy_run_does_every_stage_and_prints_what_it_wrote(toy):
    printed, told = toy
    assert tuple(told) == STAGES
    outcomes = {name: one["outcome"] for name, one in told.items()}
    assert outcomes.pop("fp8 tiny") in ("done", "lacking")
    assert set(outcomes.values()) == {"done"}, told
    assert [line for line in printed.splitlines() if line.startswith("## ")] == [
        f"## {name} ({one['outcome']}{': ' + one['why'] if one['why'] else ''}; {one['seconds']} s)"
        for name, one in told.items()
    ]


@pytest.mark.long  # most of a minute
def test_toy_run_finds_what_a_gpu_is_asked_for(toy):
    _, told = toy
    figures = {name: one["figures"] for name, one in told.items()}
    assert max(row["largest"] for row in figures["parity"]["table"]) <= 1
    mixed = figures["mixed requests"]["facts"]
    assert mixed["engine, pictures per s"] > 0
    assert 0 < mixed["share of the limit"] < 1.5
    assert mixed["row steps"] > 2 * mixed["requests"]
    idle_s = figures["idle device"]["facts"]
    assert idle_s["forwards"] >= 4
    assert 0 < idle_s["busy, traced"] < 1
    assert [row["rows"] for row in figures["forwards tiny"]["table"]] == [1, 2]
    assert figures["attention tiny"]["table"][0]["math, ms"] > 0
    assert all(row["pageable, GB/s"] > 0 for row in figures["host memory"]["table"])


def test_course_tells_failures_and_cuts_what_takes_too_long(tmp_path):
    def fail(figures: Figures) -> None:
        figures.facts["before"] = 1
        raise ValueError("no such thing\nand more")

    def lack(_figures: Figures) -> None:
        raise Lacking("a library")

    def linger(figures: Figures) -> None:
        figures.table.append({"rows": 2, "ms": 1.23456})
        while True:
            time.sleep(0.01)

    stages = [Stage("fails", 5, fail), Stage("lacks", 5, lack), Stage("lingers", 1, linger)]
    late = Stage("too late", 5, lambda figures: figures.facts.update(ran=True))
    told = list(Course(tmp_path, limit_s=60).run(stages))
    told += Course(tmp_path, limit_s=0).run([late])
    assert [one.outcome for one in told] == ["failed", "lacking", "cut", "cut"]
    assert told[0].figures.facts == {"before": 1}
    assert told[3].figures.facts == {}
    written = json.loads((tmp_path / "02-lingers.json").read_text())
    assert written["figures"]["table"] == [{"rows": 2, "ms": 1.23456}]
    assert "| rows | ms |" in list(markdown(told[2]))
    assert "| 2 | 1.235 |" in list(markdown(told[2]))


def test_idle_tells_gaps_inside_forwards_from_those_between_them():
    kernels = [(0, 10), (12, 8), (50, 10), (55, 10), (70, 30)]  # begin, duration
    events = [
        {"ph": "X", "cat": "kernel", "name": "k", "ts": start, "dur": spent}
        for start, spent in kernels
    ]
    events += [
        {"ph": "X", "cat": "gpu_user_annotation", "name": TICK, "ts": start, "dur": spent}
        for start, spent in ((0, 20), (50, 50))
    ]
    events += [
        {"ph": "X", "cat": "cpu_op", "name": "aten::add", "ts": 25, "dur": 20},
        {"ph": "X", "cat": "kernel", "name": "after the last forward", "ts": 400, "dur": 9},
        {"ph": "M", "name": "process_name"},
    ]
    found = idle(events)
    assert (found.ticks, found.operations) == (2, 2.5)
    assert (found.busy, found.inside, found.between) == (31.5, 3.5, 15.0)
    assert found.longest == 30
    assert found.busy_share == 0.63


def test_idle_of_a_trace_without_forwards_is_refused():
    with pytest.raises(ValueError, match="no forward"):
        idle([{"ph": "X", "cat": "kernel", "name": "k", "ts": 0, "dur": 1}])
