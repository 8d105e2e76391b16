"""Retrains everything in order: ``python -m training.all``; a stopped run is taken up again.

Each part is a command of its own, run in a fresh process, so that a part can be repeated alone.
"""

import argparse
import subprocess
import sys

from training.paths import Workspace, add_arguments

__all__ = ["PARTS"]

PARTS = (
    "example",
    "vae",
    "enlarge",
    "unet",
    "decoder",
    "lora",
    "embedding",
    "safety",
    "export",
    "evaluate",
)
_WITHOUT_WORKSPACE = {"example", "evaluate"}


def main() -> None:
    """Runs every part; stops at the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    options = Workspace.from_arguments(parser.parse_args())
    shared = ["--work", str(options.work), "--out", str(options.out)]
    shared += ["--processes", str(options.num_processes)]
    for name in PARTS:
        arguments = [] if name in _WITHOUT_WORKSPACE else shared
        command = [sys.executable, "-m", f"training.{name}", *arguments]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
