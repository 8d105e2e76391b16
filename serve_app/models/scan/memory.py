"""`Memory`: what a scan found before, so that the next one tells what changed."""

import fcntl
import json
from collections.abc import Iterator
from pathlib import Path

from pydantic import RootModel, ValidationError

from serve_app.models.weights.files import digest
from serve_app.types import Frozen

__all__ = ["Memory", "Seen"]

_FILE = "scan.json"


class Seen(Frozen):
    """A file or folder that became an entry. stamp: sizes and times; digest: of its contents."""

    entry_id: str
    stamp: str
    digest: str


class _Everything(RootModel[dict[str, Seen]]):
    """By absolute path."""


class Memory:
    """Kept as a file of the cache folder; one that cannot be read is begun anew.

    Args:
        cache_dir: of the catalogue.
    """

    def __init__(self, cache_dir: Path) -> None:
        self._file = cache_dir / _FILE
        self._seen = _read(self._file)

    def get(self, path: Path) -> Seen | None:
        """Return what became of a path."""
        return self._seen.get(str(path.absolute()))

    def has_changed(self, path: Path, seen: Seen) -> bool:
        """Whether its contents differ; they are read only if sizes or times do."""
        return stamp(path) != seen.stamp and digest(path) != seen.digest

    def put(self, path: Path, entry_id: str) -> None:
        """Remember an entry, and the hash of its contents, which are read."""
        told = Seen(entry_id=entry_id, stamp=stamp(path), digest=digest(path))
        self._seen[str(path.absolute())] = told

    def gone(self, folder: Path) -> Iterator[tuple[Path, Seen]]:
        """Yield what was in a folder and is there no more."""
        for text, seen in sorted(self._seen.items()):
            path = Path(text)
            if path.is_relative_to(folder.absolute()) and not path.exists():
                yield path, seen

    def save(self) -> None:
        """Write the file, with what other scans wrote meanwhile; raises OSError where it cannot."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._seen = _read(self._file) | self._seen
            unfinished = self._file.with_suffix(".new")
            unfinished.write_text(_Everything(self._seen).model_dump_json(), encoding="utf-8")
            unfinished.replace(self._file)


def _read(file: Path) -> dict[str, Seen]:
    try:
        return dict(_Everything.model_validate_json(file.read_text(encoding="utf-8")).root)
    except (OSError, ValidationError):
        return {}


def stamp(path: Path) -> str:
    """Return sizes and times of a file, or of the files in a folder."""
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    told = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return json.dumps(told)
