"""`find_twins`: which files have the contents of another."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

from serve_app.models.weights.files import digest

__all__ = ["find_twins"]

_NUM_BLOCKS = 16
_BLOCK = 4096  # bytes


def find_twins(files: Sequence[Path]) -> dict[Path, Path]:
    """Return the first of equal files by each of the others.

    Fine-tunes of one model have one size, so a few blocks are compared before anything is read
    whole.
    """
    twins: dict[Path, Path] = {}
    for equal in _groups([files], _size, _sample, digest):
        first, *others = equal
        twins |= dict.fromkeys(others, first)
    return twins


def _groups(
    groups: Iterable[Sequence[Path]], *keys: Callable[[Path], Hashable]
) -> Iterable[Sequence[Path]]:
    """Part groups by one key after another; what is alone leaves before the next is asked."""
    for key in keys:
        parted = []
        for group in groups:
            by_key: defaultdict[Hashable, list[Path]] = defaultdict(list)
            for path in group:
                by_key[key(path)].append(path)
            parted += [own for own in by_key.values() if len(own) > 1]
        groups = parted
    return groups


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1  # it has gone since; its row will tell


def _sample(path: Path) -> str:
    """Hash blocks from all over a file."""
    sample = hashlib.sha256()
    step = max(_BLOCK, _size(path) // _NUM_BLOCKS)
    if not path.exists():
        return str(path)
    with path.open("rb") as file:
        for start in range(0, _size(path), step):
            file.seek(start)
            sample.update(file.read(_BLOCK))
    return sample.hexdigest()
