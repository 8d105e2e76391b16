"""Where training keeps its progress and where the finished checkpoints go."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Workspace", "add_arguments", "budget"]

# For the processes of one training too, which inherit the environment.
_TRIAL = "DREAMSERVE_TRAINING_TRIAL"
_TRIAL_SHARE = 500


@dataclass(frozen=True, slots=True)
class Workspace:
    """``work`` holds progress and unpacked weights, ``out`` the checkpoints to ship."""

    work: Path
    out: Path
    num_processes: int = 1

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> "Workspace":
        """Reads the options that ``add_arguments`` declared."""
        if arguments.trial:
            os.environ[_TRIAL] = "1"
        return cls(arguments.work, arguments.out, arguments.processes)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options every training command has."""
    parser.add_argument("--work", type=Path, default=Path("build/training"))
    parser.add_argument("--out", type=Path, default=Path("checkpoints"))
    parser.add_argument("--processes", type=int, default=1, help="CPU processes that train as one")
    parser.add_argument("--trial", action="store_true", help="a few steps on a few pictures")


def budget(count: int) -> int:
    """Gives the number of steps or pictures to take: all of them, or a few of them in a trial."""
    return max(4, count // _TRIAL_SHARE) if _TRIAL in os.environ else count
