"""Fetches `hub` sources into the cache of this node. Blocks for as long as it takes.

`huggingface_hub` holds a lock per file and renames what it has fetched, so that processes of one
node fetch each file once, and nobody sees half of one. A revision that was fetched before loads
also while the hub does not answer. What another program fetched before, into the cache that
`catalogue.hub_cache` names, is taken from there.
"""

from pathlib import Path
from typing import Literal, NoReturn

from serve_app.config import CatalogueConfig
from serve_app.models.entry import HubSource
from serve_app.models.weights.files import Refused
from serve_app.models.weights.hub_cache import find_snapshot, has_repository

__all__ = ["fetch"]


def fetch(source: HubSource, revision: str, config: CatalogueConfig) -> Path:
    """Bring a revision of a repository, or one file of it, onto this node.

    Raises:
        Refused: no such repository, revision or file, or the hub does not answer.
    """
    if (kept := _kept(source, revision, config)) is not None:
        return kept
    # Takes a third of a second to import, and most catalogues have no hub source.
    import huggingface_hub as hub  # noqa: PLC0415
    from huggingface_hub.utils.tqdm import disable_progress_bars  # noqa: PLC0415

    disable_progress_bars()
    token = _token(config)
    try:
        if source.file is not None:
            path = hub.hf_hub_download(
                source.hub,
                source.file,
                revision=revision,
                cache_dir=_cache(config),
                endpoint=config.hub_endpoint,
                token=token,
                etag_timeout=config.hub_timeout_s,
            )
        else:
            path = hub.snapshot_download(
                source.hub,
                revision=revision,
                allow_patterns=list(source.files),
                cache_dir=_cache(config),
                endpoint=config.hub_endpoint,
                token=token,
                etag_timeout=config.hub_timeout_s,
            )
    except Exception as exc:  # of four libraries: all say that the files cannot be had
        _refuse(exc, source, revision)
    return Path(path)


def _kept(source: HubSource, revision: str, config: CatalogueConfig) -> Path | None:
    """Find a revision in the operator's cache; where a branch is now, the hub is asked."""
    cache = config.hub_cache
    if cache is None or not has_repository(source, cache):
        return None
    return find_snapshot(source, _commit(source, revision, config) or revision, cache)


def _commit(source: HubSource, revision: str, config: CatalogueConfig) -> str | None:
    """Return the commit of a branch or tag; None while the hub does not tell."""
    import huggingface_hub as hub  # noqa: PLC0415

    api = hub.HfApi(endpoint=config.hub_endpoint, token=_token(config))
    try:
        return api.model_info(source.hub, revision=revision, timeout=config.hub_timeout_s).sha
    except Exception:  # of four libraries: what is missing there may still be here
        return None


def _token(config: CatalogueConfig) -> str | Literal[False]:
    """Return what is sent; False: nothing, not even the token of the machine's user."""
    return False if config.hub_token is None else config.hub_token.get_secret_value()


def _cache(config: CatalogueConfig) -> Path:
    assert config.cache_dir is not None, "AppConfig fills it in"
    return config.cache_dir / "hub"


def _refuse(error: Exception, source: HubSource, revision: str) -> NoReturn:
    from huggingface_hub import errors as hub  # noqa: PLC0415

    if isinstance(error, hub.RevisionNotFoundError):
        reason = f"{source.hub} has no revision {revision}"
    elif isinstance(error, hub.RepositoryNotFoundError):
        reason = f"the hub has no repository {source.hub}, or it is private"
    elif isinstance(error, hub.RemoteEntryNotFoundError):
        reason = f"{source.hub} has no file {source.file} in revision {revision}"
    else:
        reason = f"{source.hub} could not be fetched: {type(error).__name__}: {error}"
    raise Refused(reason) from error
