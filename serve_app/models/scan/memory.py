"""`Memory`: what a scan found before, so that the next one tells what changed."""

import fcntl
import json
from collections.abc import Iterator
from pathlib import Path

from pydantic import RootModel, ValidationError

from serve_app.models.entry import AddOn, Entry
from serve_app.models.weights.files import digest
from serve_app.types import Frozen

__all__ = ["Memory", "Seen"]

_FILE = "scan.json"


class Seen(Frozen):
    """A file or folder that became an entry.

    stamp: sizes and times. digest: of its contents; empty until somebody has read them.
    models: that an add-on was offered with; none where its entry is the operator's own file.
    """

    entry_id: str
    stamp: str
    digest: str = ""
    models: tuple[str, ...] = ()


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
        return self._seen.get(_key(path))

    def has_changed(self, path: Path, seen: Seen) -> bool:
        """Whether its contents differ; they are read only if sizes or times do.

        New times of the same contents are remembered.
        """
        now = stamp(path)
        if now == seen.stamp:
            return False
        if not seen.digest or digest(path) != seen.digest:
            return True
        self._seen[_key(path)] = seen.model_copy(update={"stamp": now})
        return False

    def put(self, path: Path, entry: Entry, *, is_file: bool = False) -> None:
        """Remember an entry. A hash that was taken before stays if the contents are the same.

        is_file: of the catalogue, which nobody but the operator changes.
        """
        seen = self.get(path)
        models = entry.models if isinstance(entry, AddOn) and not is_file else ()
        is_same = seen is not None and not self.has_changed(path, seen)
        kept = seen.digest if seen is not None and is_same else ""
        told = Seen(entry_id=entry.id, stamp=stamp(path), digest=kept, models=models)
        self._seen[_key(path)] = told

    def unhashed(self, folder: Path) -> list[Path]:
        """List what is remembered of a folder without a hash."""
        paths = (Path(text) for text, seen in sorted(self._seen.items()) if not seen.digest)
        return [path for path in paths if path.is_relative_to(folder) and path.exists()]

    def hash(self, path: Path) -> None:
        """Read contents and remember their hash, unless they change meanwhile. From any thread."""
        before, told = stamp(path), digest(path)
        seen = self._seen[_key(path)]
        if stamp(path) == before == seen.stamp:
            self._seen[_key(path)] = seen.model_copy(update={"digest": told})

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


def _key(path: Path) -> str:
    return str(path.absolute())


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
