"""`prefetch`: has the system read files before somebody needs them."""

import os
from collections.abc import Iterable
from pathlib import Path

__all__ = ["prefetch"]


def prefetch(files: Iterable[Path]) -> None:
    """Ask the system to read files into its page cache; wait for none.

    Weights are mapped, and whoever looks at mapped memory waits for a few pages at a time, in
    whatever order the layers are in.
    """
    if not hasattr(os, "posix_fadvise"):
        return  # macOS
    for file in files:
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
