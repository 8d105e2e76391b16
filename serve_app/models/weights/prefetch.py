"""`prefetch`: has the system read files before somebody needs them."""

import os
import threading
from collections.abc import Iterable
from pathlib import Path

__all__ = ["prefetch"]

_STEP_BYTES = 128 << 10  # of one piece of advice; Linux does no more of it than a read-ahead window


def prefetch(files: Iterable[Path]) -> threading.Thread | None:
    """Ask the system to read files into its page cache, from a thread of its own; wait for none.

    Weights are mapped, and whoever looks at mapped memory waits for a few pages at a time, in
    whatever order the layers are in. A file that cannot be read is left to whoever needs it.

    Returns:
        The thread that asks; none where the system takes no advice.
    """
    if not hasattr(os, "posix_fadvise"):
        return None  # macOS
    asking = threading.Thread(target=_advise, args=(list(files),), name="read-ahead", daemon=True)
    asking.start()
    return asking


def _advise(files: Iterable[Path]) -> None:
    for file in files:
        try:
            with file.open("rb") as opened:
                for start in range(0, os.fstat(opened.fileno()).st_size, _STEP_BYTES):
                    os.posix_fadvise(opened.fileno(), start, _STEP_BYTES, os.POSIX_FADV_WILLNEED)
        except OSError:
            continue
