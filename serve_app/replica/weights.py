"""`Weights`: what a `Resident` needs to get at the weights of its model; those of the catalogue."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from serve_app import errors
from serve_app.config import CatalogueConfig, EngineConfig
from serve_app.models import ModelEntry
from serve_app.models.protocol import Desired
from serve_app.models.weights.resolve import digest, resolve
from serve_app.pipelines.addons.lookup import AddOns, FindAddOn
from serve_app.pipelines.host import HostCopies
from serve_app.pipelines.protocol import Painter
from serve_app.replica.factory import copy_key, painter_factory

__all__ = ["CatalogueWeights", "Found", "Held", "Weights"]


@dataclass(frozen=True, slots=True)
class Held:
    """Weights that serve or did. digest: of their files; equal digests are equal weights."""

    desired: Desired
    digest: str


@dataclass(frozen=True, slots=True)
class Found(Held):
    """Weights that are here. Both functions block; bad files may make them raise anything.

    check: raises when the files alone tell that they are bad; takes little memory.
    load: loads them and paints one step; `errors.OutOfMemory` when they do not fit.
    """

    check: Callable[[], None]
    load: Callable[[], Painter]


class Weights(Protocol):
    """The weights of one model. Both methods block."""

    def find(self, desired: Desired) -> Found:
        """Get the files and hold them against what the catalogue knows; may raise anything."""
        ...

    def tidy(self) -> None:
        """Return memory that nothing refers to any more to the device."""
        ...


class CatalogueWeights:
    """The weights of a catalogue entry, with what requests may add to them.

    Args:
        entry: the model.
        find: looks up what requests name as `loras`, `vae` and `embeddings`.
        catalogue: how weights are had.
        engine: what paints.
        host: keeps copies in CPU memory; none: every load reads the files.
    """

    def __init__(
        self,
        entry: ModelEntry,
        find: FindAddOn,
        catalogue: CatalogueConfig,
        engine: EngineConfig,
        host: HostCopies | None = None,
    ) -> None:
        self._entry = entry
        self._add_ons = AddOns(entry.id, find, catalogue)
        self._catalogue = catalogue
        self._factory = painter_factory(engine)
        self._host = host

    def find(self, desired: Desired) -> Found:
        """Get the files onto this node and hash them; see the protocol.

        Raises:
            errors.WeightsRefused: they cannot be had or may not be loaded.
        """
        if not self._factory.needs_files(self._entry):
            make = partial(self._factory.make, self._entry)
            return Found(desired, "", check=lambda: None, load=make)
        entry = resolve(self._entry, self._catalogue, desired.revision)
        return Found(
            desired,
            _digest(entry),
            check=partial(self._factory.check, entry.path),
            load=partial(self._load, entry),
        )

    def tidy(self) -> None:
        """Collect garbage, on the device too; see the protocol."""
        self._factory.tidy()

    def _load(self, entry: ModelEntry) -> Painter:
        before = _digest(entry)
        try:
            painter = self._factory.make(entry, self._add_ons, before, self._host)
            if _digest(entry) != before:
                painter.close()
                raise errors.WeightsRefused(entry.id, "the files changed while they were loaded")
        except errors.OutOfMemory:
            raise  # says nothing about the weights
        except Exception:
            if self._host is not None:
                self._host.forget(copy_key(before, entry))
            raise
        return painter


def _digest(entry: ModelEntry) -> str:
    """Hash all that is loaded, and as what; what did not change is not read again."""
    sources = {"source": entry.path, **entry.parts}
    told = [f"{name} {digest(path)}" for name, path in sources.items() if isinstance(path, Path)]
    return hashlib.sha256(" ".join(told).encode()).hexdigest()
