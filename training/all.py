"""Retrains everything in order: ``python -m training.all``; a stopped run is taken up again.

Each part is a command of its own, run in a fresh process, so that a part can be repeated alone.
"""

import argparse
import subprocess
import sys

from training.paths import add_arguments

__all__ = ["PARTS"]

PARTS = (
    "example",
    "vae",
    "enlarge",
    "unet",
    "polish",
    "decoder",
    "lora",
    "embedding",
    "safety",
    "export",
    "controlnet",
    "evaluate",
)
_TRIAL_CAPTIONS = ("--captions", "12", "--large-captions", "4", "--adapter-captions", "4")


def main() -> None:
    """Runs every part; stops at the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    asked = parser.parse_args()
    out = ["--out", str(asked.out)]
    shared = [*out, "--work", str(asked.work), "--processes", str(asked.processes)]
    shared += ["--trial"] if asked.trial else []
    scores = ["--report", str(asked.work / "scores.md"), "--sheets", str(asked.work / "sheets")]
    own: dict[str, list[str]] = {
        "example": [],
        "evaluate": [*out, *scores, *(_TRIAL_CAPTIONS if asked.trial else ())],
    }
    for name in PARTS:
        arguments = own.get(name, shared)
        command = [sys.executable, "-m", f"training.{name}", *arguments]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
