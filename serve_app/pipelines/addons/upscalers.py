"""Upscalers of one model: what `upscale` enlarges finished pictures with, where one is named.

They run beside the engine, a picture at a time and in tiles, so that they take the memory of one
tile however large a picture is.
"""

from collections.abc import Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass
from threading import Event, Lock
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file

from serve_app.config import EngineConfig
from serve_app.pipelines.addons.lookup import Named
from serve_app.pipelines.addons.lru import Lru, Uses, num_bytes
from serve_app.pipelines.addons.misfit import Unfit, judging
from serve_app.pipelines.addons.super_resolution import Network, read_network
from serve_app.pipelines.compose import Pixels, resized
from serve_app.pipelines.soundness import settle

__all__ = ["Upscaler", "Upscalers"]


@dataclass(frozen=True, slots=True, eq=False)
class Upscaler:
    """A loaded network, and the tiles that it sees. From one thread at a time.

    tile_px, overlap_px: sides of a tile, and what of its neighbours it sees on each side.
    """

    named: Named
    network: Network
    device: torch.device
    tile_px: int
    overlap_px: int

    def enlarge(self, pixels: Pixels, factor: int, stop: Event) -> Pixels:
        """Return a picture `factor` times as large; seconds of work.

        stop: the picture is not wanted any more.

        Raises:
            errors.AddOnMisfit: the network gives no numbers.
            errors.OutOfMemory: a tile has no room on the device.
            CancelledError: it was stopped.
        """
        height, width = pixels.shape[:2]
        result = np.empty((height * factor, width * factor, 3), np.uint8)
        for tile in _tiles(height, width, self.tile_px, self.overlap_px):
            if stop.is_set():
                raise CancelledError
            with judging(self.named):
                made = self._run(pixels[tile.seen], factor)
            result[_times(tile.kept, factor)] = made[_times(tile.inner, factor)]
        return result

    @torch.inference_mode()
    def _run(self, pixels: Pixels, factor: int) -> Pixels:
        """Enlarge a tile, and bring what the network made of it to the size that is asked for."""
        values = torch.tensor(pixels, device=self.device).float() / 255
        made = self.network(values.permute(2, 0, 1)[None])[0]
        if not bool(torch.isfinite(made).all()):
            raise Unfit("an upscaler whose picture is NaN or infinite", "numbers")
        levels = (made.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        return resized(levels, pixels.shape[0] * factor, pixels.shape[1] * factor)


class Upscalers:
    """Loads an upscaler when a request names it and it is not there. From several threads.

    device: of the model. uses: upscalers of jobs at work, by key; others leave when
    `engine.upscaler_bytes` are taken.
    """

    def __init__(self, device: torch.device, config: EngineConfig, uses: Uses) -> None:
        self._device = device
        self._config = config
        self._lock = Lock()
        self._loaded: Lru[Upscaler] = Lru(config.upscaler_bytes, uses)

    def get(self, named: Named | None) -> Upscaler | None:
        """Return what a request names. Blocks while one is loaded.

        Raises:
            errors.AddOnMisfit: it is none; `errors.OutOfMemory` where there is no room.
        """
        if named is None:
            return None
        with self._lock:
            loaded = self._loaded.get(named.key)
            if loaded is None:
                loaded = self._load(named)
                self._loaded.put(named.key, loaded, num_bytes(loaded.network))
            return loaded

    def _load(self, named: Named) -> Upscaler:
        with judging(named):
            network = read_network(load_file(named.entry.path)).to(self._device)
            settle("the upscaler", network, self._device)
        tile_px, overlap_px = self._config.upscaler_tile_px, self._config.upscaler_overlap_px
        return Upscaler(named, network, self._device, tile_px, overlap_px)


Area = tuple[slice, slice]  # rows and columns


class _Tile(NamedTuple):
    """Parts of a picture. seen: by the network. kept: of the result; inner: the same in `seen`."""

    seen: Area
    kept: Area
    inner: Area


def _tiles(height: int, width: int, side: int, overlap: int) -> Iterator[_Tile]:
    for seen_y, kept_y, inner_y in _spans(height, side, overlap):
        for seen_x, kept_x, inner_x in _spans(width, side, overlap):
            yield _Tile((seen_y, seen_x), (kept_y, kept_x), (inner_y, inner_x))


def _spans(length: int, side: int, overlap: int) -> Iterator[tuple[slice, slice, slice]]:
    for start in range(0, length, side):
        stop = min(start + side, length)
        first = max(0, start - overlap)
        seen = slice(first, min(length, stop + overlap))
        yield seen, slice(start, stop), slice(start - first, stop - first)


def _times(area: Area, factor: int) -> Area:
    rows, columns = (slice(part.start * factor, part.stop * factor) for part in area)
    return rows, columns
