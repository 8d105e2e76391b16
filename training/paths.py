"""Where training keeps its progress and where the finished checkpoints go."""

import argparse
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Workspace", "add_arguments"]


@dataclass(frozen=True, slots=True)
class Workspace:
    """``work`` holds progress and unpacked weights, ``out`` the checkpoints to ship."""

    work: Path
    out: Path
    num_processes: int = 1

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> "Workspace":
        """Reads the options that ``add_arguments`` declared."""
        return cls(arguments.work, arguments.out, arguments.processes)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options every training command has."""
    parser.add_argument("--work", type=Path, default=Path("build/training"))
    parser.add_argument("--out", type=Path, default=Path("checkpoints"))
    parser.add_argument("--processes", type=int, default=1, help="CPU processes that train as one")
