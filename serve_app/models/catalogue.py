"""`Catalogue`: the model entries of a configuration, by id."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

import yaml
from pydantic import ValidationError

from serve_app import errors
from serve_app.config import CatalogueConfig
from serve_app.models.entry import ModelEntry
from serve_app.types import Kind

__all__ = ["Catalogue", "CatalogueError"]


class CatalogueError(ValueError):
    """The operator's model files are wrong; raised before anything is deployed."""


class Catalogue:
    """Immutable mapping of model id to entry."""

    def __init__(self, entries: Iterable[ModelEntry]) -> None:
        self._entries: dict[str, ModelEntry] = {}
        for entry in entries:
            if entry.id in self._entries:
                raise CatalogueError(f"two models have the id {entry.id!r}")
            self._entries[entry.id] = entry

    @classmethod
    def load(cls, config: CatalogueConfig, root_dir: Path) -> Self:
        """Read the model files that the configuration names.

        Raises:
            CatalogueError: no folder, no such id, equal ids, or a file that is not a model entry.
        """
        files = sorted(config.path.glob("*.yaml"))
        if not files:
            raise CatalogueError(f"no model files in {config.path}")
        entries = cls(_read(file, root_dir) for file in files)
        if config.models is None:
            return entries
        missing = set(config.models) - {entry.id for entry in entries}
        if missing:
            raise CatalogueError(f"no model file has the id {', '.join(sorted(missing))}")
        return cls(entries._entries[model_id] for model_id in config.models)

    def __iter__(self) -> Iterator[ModelEntry]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, model_id: str, kind: Kind) -> ModelEntry:
        """Look up a model that answers this kind of call.

        Raises:
            errors.ModelNotFound: no such model.
            errors.NotServed: the model does not do this kind.
        """
        entry = self._entries.get(model_id)
        if entry is None:
            raise errors.ModelNotFound(model_id[:96])
        if kind not in entry.kinds:
            raise errors.NotServed(f"The model {entry.id} does not serve {kind.value}")
        return entry


def _read(file: Path, root_dir: Path) -> ModelEntry:
    try:
        entry = ModelEntry.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (yaml.YAMLError, ValidationError) as exc:
        raise CatalogueError(f"{file.name}: {exc}") from exc
    return entry.model_copy(update={"source": root_dir / entry.source})
