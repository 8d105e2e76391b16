"""`PainterFactory`: all that depends on `engine.painter`; the only place that looks at the setting.

The real painter needs torch, which is imported where it is first used: fakes must not pay for it.
"""

import functools
import gc
import time
from pathlib import Path
from typing import Protocol

from serve_app import errors
from serve_app.config import EngineConfig
from serve_app.imports import heavy_imports
from serve_app.models import ModelEntry
from serve_app.pipelines.addons.lookup import AddOns
from serve_app.pipelines.fake import FakePainter
from serve_app.pipelines.host import HostCopies
from serve_app.pipelines.protocol import Painter

__all__ = ["FakeFactory", "PainterFactory", "WeaveFactory", "copy_key", "painter_factory"]


class PainterFactory(Protocol):
    """Makes the painters of a replica."""

    def needs_files(self, entry: ModelEntry) -> bool:
        """Whether there is no painter without the files of the entry."""
        ...

    def settle(self, entry: ModelEntry) -> ModelEntry:
        """Decide on a dtype that is left to the device."""
        ...

    def check(self, path: Path) -> None:
        """Raise anything when the files alone tell that they are bad; takes little memory."""
        ...

    def make(
        self,
        entry: ModelEntry,
        add_ons: AddOns | None = None,
        mark: str = "",
        host: HostCopies | None = None,
    ) -> Painter:
        """Load a resolved entry and start an engine. Blocks, perhaps for minutes.

        mark: of the weights; shows in the pictures of the fake painter.
        host: keeps copies of marked weights in CPU memory.

        Raises:
            errors.GenerationFailed: the weights do not paint; `errors.OutOfMemory` where they do
                not fit.
            OSError: they are no checkpoint.
            ValueError: an architecture that is not served, or the weights are not sound.
        """
        ...

    def tidy(self) -> None:
        """Return memory that nothing refers to any more to the device."""
        ...


def painter_factory(config: EngineConfig) -> PainterFactory:
    """Make the factory that the settings name."""
    return FakeFactory(config) if config.painter == "fake" else WeaveFactory(config)


class FakeFactory:
    """Makes painters that need no torch, and files only where there are some."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config

    def needs_files(self, entry: ModelEntry) -> bool:
        """Whether the entry's files exist or may; see the protocol."""
        return not isinstance(entry.source, Path) or entry.source.exists()

    def settle(self, entry: ModelEntry) -> ModelEntry:
        """Return the entry as it is: nothing is computed in a dtype."""
        return entry

    def check(self, path: Path) -> None:
        """Accept any files; see the protocol."""

    def make(
        self,
        entry: ModelEntry,
        add_ons: AddOns | None = None,  # noqa: ARG002
        mark: str = "",
        host: HostCopies | None = None,  # noqa: ARG002
    ) -> Painter:
        """Make one after the time that a load is said to take; see the protocol."""
        time.sleep(self._config.fake_load_s)
        return FakePainter(self._config.fake_step_s, entry.native_size_px, entry.kinds, mark)

    def tidy(self) -> None:
        """Collect garbage; see the protocol."""
        gc.collect()


class WeaveFactory:
    """Makes the painters that paint."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config

    def needs_files(self, entry: ModelEntry) -> bool:  # noqa: ARG002
        """Return true; see the protocol."""
        return True

    def settle(self, entry: ModelEntry) -> ModelEntry:
        """Ask the device only where the entry says `auto`; see the protocol."""
        if entry.dtype != "auto":
            return entry
        _import_all()
        from serve_app.pipelines.precision import device_of, with_dtype  # noqa: PLC0415

        return with_dtype(entry, device_of(self._config.device))

    def check(self, path: Path) -> None:
        """Read every tensor; see the protocol."""
        _import_all()
        from serve_app.pipelines.soundness import check_files  # noqa: PLC0415

        check_files(path)

    def make(
        self,
        entry: ModelEntry,
        add_ons: AddOns | None = None,
        mark: str = "",
        host: HostCopies | None = None,
    ) -> Painter:
        """Load a stock pipeline and weave; see the protocol."""
        _import_all()
        import torch  # noqa: PLC0415

        from serve_app.pipelines.loader import load_checkpoint  # noqa: PLC0415
        from serve_app.pipelines.painter import WeavePainter  # noqa: PLC0415

        try:
            checkpoint = load_checkpoint(entry, self._config, host, copy_key(mark, entry))
            return WeavePainter(entry, self._config, checkpoint, add_ons)
        except (torch.OutOfMemoryError, MemoryError) as exc:
            raise errors.OutOfMemory(str(exc)) from exc

    def tidy(self) -> None:
        """Collect garbage, on the device too; see the protocol."""
        gc.collect()
        import torch  # noqa: PLC0415

        torch.cuda.empty_cache()  # nothing where there is no GPU


@functools.cache
def _import_all() -> None:
    """Import all that a painter needs; what is asked for first needs the most of it."""
    with heavy_imports():
        import serve_app.pipelines.loader  # noqa: PLC0415
        import serve_app.pipelines.painter  # noqa: F401, PLC0415


def copy_key(digest: str, entry: ModelEntry) -> str:
    """Name what a copy in CPU memory depends on: the files, which of them, and in what dtype."""
    return f"{digest} {entry.dtype} {entry.variant}"
