"""`resolve`: from what an entry says to files on this node that may be loaded.

Called by a replica before it loads, and by `dreamserve models verify`. Blocks: it may fetch and
hash gigabytes.
"""

from pathlib import Path

import structlog

from serve_app import errors
from serve_app.config import CatalogueConfig
from serve_app.models.entry import E, HubSource, ModelEntry
from serve_app.models.inspect.file import Fault, Unreadable
from serve_app.models.inspect.inspect import inspect
from serve_app.models.inspect.inspection import FileType
from serve_app.models.weights import copies, hub
from serve_app.models.weights.files import (
    Refused,
    check_headers,
    check_manifest,
    digest,
    list_files,
)
from serve_app.models.weights.folder import choose_variant
from serve_app.models.weights.settings import settings_folder, training_of

__all__ = ["digest", "resolve"]

_log = structlog.get_logger()
_CONFIG_FILES = ("*.json", "*.txt", "*.model")


def resolve(entry: E, config: CatalogueConfig, revision: str | None = None) -> E:
    """Get the files of an entry and judge them; gives the entry with paths of this node.

    Args:
        revision: in place of the one that the entry names; only hub sources have any.

    Raises:
        errors.WeightsRefused: they cannot be had, differ from the manifest, or are unsafe.
    """
    try:
        source = _weights(entry, config, revision)
        changes: dict[str, object] = {"source": source}
        if isinstance(entry, ModelEntry):
            changes |= _parts(entry, config)
            changes |= _told(entry, source, config)
    except (Refused, OSError) as exc:
        raise errors.WeightsRefused(entry.id, str(exc)) from exc
    return entry.model_copy(update=changes)


def _weights(entry: E, config: CatalogueConfig, revision: str | None) -> Path:
    source = entry.source
    if isinstance(source, HubSource):
        path = hub.fetch(source, revision or source.revision, config)
    else:
        path = source
        if revision is not None:
            _log.warning("revision_ignored", entry_id=entry.id, revision=revision)

    def judge(path: Path) -> None:
        files = list_files(path, allow_pickle=config.allow_pickle)
        check_headers(files, max_bytes=config.max_header_bytes, max_tensors=config.max_tensors)
        check_manifest(files, entry.sha256)

    if config.copy_weights and not isinstance(source, HubSource):
        files = list_files(path, allow_pickle=config.allow_pickle)
        assert config.cache_dir is not None, "AppConfig fills it in"
        path = copies.local_copy(path, files, config.cache_dir, judge)
    judge(path)
    return path


def _parts(entry: ModelEntry, config: CatalogueConfig) -> dict[str, Path]:
    """Get the folders that an entry names besides its source."""
    parts = {}
    for name, source in entry.parts.items():
        if isinstance(source, HubSource) and name == "base_config":
            source = source.model_copy(update={"files": _CONFIG_FILES})  # noqa: PLW2901
        path = source
        if isinstance(source, HubSource):
            path = hub.fetch(source, source.revision, config)
        assert isinstance(path, Path), "a hub's was fetched"
        _check_kind(name, path, config)
        if name != "base_config":  # of which nothing but settings is read
            _check(name, path, config)
        parts[name] = path
    return parts


def _check_kind(name: str, path: Path, config: CatalogueConfig) -> None:
    """Raise Refused unless it is a folder of diffusers, or for a VAE the file of one."""
    if name == "vae" and path.is_file():
        if (found := inspect(path, config)).type is not FileType.VAE:
            raise Refused(f"vae: found {found.noun}, expected a VAE")
        return
    mark = "config.json" if name == "vae" else "model_index.json"
    if not (path / mark).is_file():
        raise Refused(f"{name}: {path} is not a diffusers folder, which has a {mark}")


def _check(name: str, folder: Path, config: CatalogueConfig) -> None:
    try:
        files = list_files(folder, allow_pickle=config.allow_pickle)
        check_headers(files, max_bytes=config.max_header_bytes, max_tensors=config.max_tensors)
    except Refused as exc:
        raise Refused(f"{name}: {exc}") from exc


def _told(entry: ModelEntry, source: Path, config: CatalogueConfig) -> dict[str, object]:
    """Return what files tell of themselves, for the fields that the entry leaves open."""
    if source.is_dir():
        if entry.base is not None:
            raise Refused("base is for single files, and the source is a folder")
        return {"variant": choose_variant(source, entry.variant)}
    if entry.variant is not None:
        raise Refused("variant is for folders, and the source is a single file")
    has_settings = entry.base is not None or entry.base_config is not None
    try:
        found = inspect(source, config)
    except Unreadable as exc:
        if exc.fault is Fault.PICKLE and config.allow_pickle and has_settings:
            return {}  # the operator made it
        raise
    told: dict[str, object] = training_of(entry, found)
    if not has_settings:
        told["base_config"] = settings_folder(entry, found, config)
    return told
