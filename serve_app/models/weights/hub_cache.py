"""`find_snapshot`: a repository in a hub cache that the operator has already. It is only read.

Source: huggingface_hub's "Understand caching": `models--owner--name` holds `refs/` with the commits
of branches and tags, and `snapshots/<commit>/`, whose files are links into `blobs/`.
"""

import re
from pathlib import Path

from serve_app.models.entry import HUB_FILES, HubSource
from serve_app.models.weights.folder import INDEX, LEFT_OUT, components

__all__ = ["find_snapshot", "has_repository"]

_COMMIT = re.compile(r"[0-9a-f]{40}")


def has_repository(source: HubSource, cache: Path) -> bool:
    """Whether a cache has anything of a repository."""
    return _repository(source, cache).is_dir()


def find_snapshot(source: HubSource, revision: str, cache: Path) -> Path | None:
    """Find what a source names; None where the cache does not have the whole of it.

    Args:
        revision: branch, tag or commit; branches and tags are as they were when they were fetched.
        cache: folder of the repositories.
    """
    repository = _repository(source, cache)
    try:
        commit = (repository / "refs" / revision).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        commit = revision
    if not _COMMIT.fullmatch(commit):
        return None
    snapshot = repository / "snapshots" / commit
    if source.file is not None:
        return snapshot / source.file if (snapshot / source.file).is_file() else None
    return snapshot if _is_whole(snapshot, source) else None


def _repository(source: HubSource, cache: Path) -> Path:
    return cache / f"models--{source.hub.replace('/', '--')}"


def _is_whole(snapshot: Path, source: HubSource) -> bool:
    """Whether a snapshot has the files that are wanted: programs fetch parts of repositories."""
    if any(file.is_symlink() and not file.exists() for file in snapshot.rglob("*")):
        return False  # somebody tidied up
    if source.files != HUB_FILES:
        return all(any(snapshot.rglob(pattern)) for pattern in source.files)
    if not (snapshot / INDEX).is_file():
        return any(snapshot.rglob("*.safetensors"))
    needed = (snapshot / name for name in components(snapshot) if name not in LEFT_OUT)
    return all(part.is_dir() and any(part.iterdir()) for part in needed)
