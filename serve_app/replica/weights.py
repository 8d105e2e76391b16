"""`Weights`: what a `Resident` needs to get at the weights of its model; those of the catalogue."""

import gc
import hashlib
import time
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
from serve_app.pipelines.fake import FakePainter
from serve_app.pipelines.host import HostCopies
from serve_app.pipelines.protocol import Painter

__all__ = ["CatalogueWeights", "Found", "Held", "Weights", "make_painter"]


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
        self._engine = engine
        self._host = host

    def find(self, desired: Desired) -> Found:
        """Get the files onto this node and hash them; see the protocol.

        Raises:
            errors.WeightsRefused: they cannot be had or may not be loaded.
        """
        if self._engine.painter == "fake" and not _may_exist(self._entry):
            make = partial(make_painter, self._entry, self._engine)
            return Found(desired, "", check=lambda: None, load=make)
        entry = resolve(self._entry, self._catalogue, desired.revision)
        return Found(
            desired,
            _digest(entry),
            check=partial(self._check, entry),
            load=partial(self._load, entry),
        )

    def tidy(self) -> None:
        """Collect garbage, on the device too; see the protocol."""
        gc.collect()
        if self._engine.painter == "weave":
            import torch  # noqa: PLC0415  # the fake painter needs none

            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _check(self, entry: ModelEntry) -> None:
        if self._engine.painter == "weave":
            from serve_app.pipelines.soundness import check_files  # noqa: PLC0415

            check_files(entry.path)

    def _load(self, entry: ModelEntry) -> Painter:
        before = _digest(entry)
        try:
            painter = make_painter(entry, self._engine, self._add_ons, before, self._host)
            if _digest(entry) != before:
                painter.close()
                raise errors.WeightsRefused(entry.id, "the files changed while they were loaded")
        except errors.OutOfMemory:
            raise  # says nothing about the weights
        except Exception:
            if self._host is not None:
                self._host.forget(_copy_key(before, entry))
            raise
        return painter


def make_painter(
    entry: ModelEntry,
    config: EngineConfig,
    add_ons: AddOns | None = None,
    mark: str = "",
    host: HostCopies | None = None,
) -> Painter:
    """Load a resolved entry and start an engine. Blocks, perhaps for minutes.

    mark: of the weights; shows in the pictures of the fake painter.
    host: keeps copies of marked weights in CPU memory.

    Raises:
        errors.GenerationFailed: the weights do not paint; `errors.OutOfMemory` where they do not
            fit.
        OSError: they are no checkpoint.
        ValueError: an architecture that is not served, or the weights are not sound.
    """
    if config.painter == "fake":
        time.sleep(config.fake_load_s)
        return FakePainter(config.fake_step_s, entry.native_size_px, entry.kinds, mark)
    # Here and not above: the painter needs torch, the fake does not.
    import torch  # noqa: PLC0415

    from serve_app.pipelines.loader import load_checkpoint  # noqa: PLC0415
    from serve_app.pipelines.painter import WeavePainter  # noqa: PLC0415

    try:
        checkpoint = load_checkpoint(entry, config, host, _copy_key(mark, entry))
        return WeavePainter(entry, config, checkpoint, add_ons)
    except (torch.OutOfMemoryError, MemoryError) as exc:
        raise errors.OutOfMemory(str(exc)) from exc


def _copy_key(digest: str, entry: ModelEntry) -> str:
    """Name what a copy in CPU memory depends on: the files, which of them, and in what dtype."""
    return f"{digest} {entry.dtype} {entry.variant}"


def _may_exist(entry: ModelEntry) -> bool:
    return not isinstance(entry.source, Path) or entry.source.exists()


def _digest(entry: ModelEntry) -> str:
    """Hash all that is loaded, and as what; what did not change is not read again."""
    sources = {"source": entry.path, **entry.parts}
    told = [f"{name} {digest(path)}" for name, path in sources.items() if isinstance(path, Path)]
    return hashlib.sha256(" ".join(told).encode()).hexdigest()
