"""The load: `wrk`, which costs little beside what it measures."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Answers", "Call", "send"]

_SCRIPT = Path(__file__).with_name("calls.lua")
_PATIENCE_S = 60  # for an answer


@dataclass(frozen=True, slots=True)
class Call:
    """A call that is sent again and again, and what its answer holds if it went well."""

    path: str
    body: Mapping[str, object]
    expected: str


@dataclass(frozen=True, slots=True)
class Answers:
    """What came back. other: answers of another kind, refusals most of all; broken: none came."""

    seconds: float
    expected: int
    other: int
    broken: int
    p50_s: float
    p99_s: float

    @property
    def rate_hz(self) -> float:
        """Good answers per second."""
        return self.expected / self.seconds


def send(
    base_url: str, call: Call, connections: int, seconds: float, pace_s: float = 0.0
) -> Answers:
    """Keep so many calls open for so long; blocks.

    pace_s: what a connection waits between an answer and its next call, on the mean; waits are
    those of callers who know nothing of each other (exponential).

    Raises:
        FileNotFoundError: `wrk` is not installed.
    """
    wrk = shutil.which("wrk")
    if wrk is None:
        raise FileNotFoundError("wrk is not installed; Debian has a package of that name")
    said = subprocess.run(
        [
            *(wrk, "--threads", "1", "--connections", str(connections)),
            *("--duration", f"{round(seconds)}s", "--timeout", f"{_PATIENCE_S}s"),
            *("--script", str(_SCRIPT), base_url + call.path),
        ],
        env=os.environ
        | {
            "ROAD_BODY": json.dumps(call.body),
            "ROAD_EXPECTED": call.expected,
            "ROAD_PACE_MS": str(pace_s * 1e3),
        },
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (line,) = [line for line in said.splitlines() if line.startswith("ROAD ")]
    return Answers(**json.loads(line.removeprefix("ROAD ")))
