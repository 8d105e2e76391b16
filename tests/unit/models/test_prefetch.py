"""Tests of `prefetch`: files are in the page cache soon, and no bad file stops the others."""

import ctypes
import mmap
import os
import time
from pathlib import Path

import pytest

from serve_app.models.weights.prefetch import prefetch

_SIZE = 32 << 20


def test_whole_files_come_into_the_page_cache(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(os.urandom(1 << 20) * (_SIZE >> 20))
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if _resident(file) > 0.5:
        pytest.skip("the file system keeps pages that are not needed")
    asking = prefetch([tmp_path / "absent", file])
    assert asking is not None
    asking.join(30)
    assert not asking.is_alive()
    ends = time.monotonic() + 30
    while _resident(file) < 0.99 and time.monotonic() < ends:
        time.sleep(0.02)  # asked for, not yet read
    assert _resident(file) > 0.99


def _resident(file: Path) -> float:
    """Return the share of a file's pages that are in the page cache."""
    libc = ctypes.CDLL(None, use_errno=True)
    with (
        file.open("r+b") as opened,
        mmap.mmap(opened.fileno(), _SIZE) as mapped,
    ):
        pages = (ctypes.c_ubyte * (_SIZE // mmap.PAGESIZE))()
        start = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        assert libc.mincore(ctypes.c_void_p(start), ctypes.c_size_t(_SIZE), pages) == 0
        return sum(page & 1 for page in pages) / len(pages)
