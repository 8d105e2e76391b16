"""Copies of shared weights on this node's own disk, made once by the first that needs them.

A copy is built under another name and renamed when it is whole. Processes of one node take turns by
a lock on a file of the cache folder, which ends with the process that holds it.
"""

import fcntl
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from serve_app.models.weights.files import fingerprint

__all__ = ["local_copy"]


def local_copy(
    source: Path, files: Mapping[str, Path], cache_dir: Path, check: Callable[[Path], None]
) -> Path:
    """Find or make the copy of a folder or file.

    Args:
        files: those of the source by relative path. What changes them makes another copy; so does
            another source, since fine-tunes may be equal in names, sizes and normalised times.
        check: judges a copy before others see it; what it raises leaves no copy.

    Raises:
        OSError: it cannot be read or written.
    """
    placed = {str(source.resolve() / name): file for name, file in files.items()}
    folder = cache_dir / "copies" / fingerprint(placed)
    copy = folder / source.name
    with _locked(folder.with_suffix(".lock")):
        if not folder.exists():
            unfinished = folder.with_suffix(".new")
            shutil.rmtree(unfinished, ignore_errors=True)  # of a process that died
            try:
                _copy(source, files, unfinished / source.name)
                check(unfinished / source.name)
                unfinished.rename(folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    return copy


def _copy(source: Path, files: Mapping[str, Path], target: Path) -> None:
    for name, file in files.items():
        place = target if source.is_file() else target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
