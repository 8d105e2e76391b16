"""Previews: small pictures of what a job paints so far, for those who watch it.

Somebody asks, the next step shows its estimate, and a thread of its own makes a picture of that:
one for each time that somebody asked. While nobody does nothing is computed.
"""

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import structlog
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from serve_app.config import EngineConfig
from serve_app.images.codec import encode_jpeg
from serve_app.pipelines.checkpoint import Checkpoint
from serve_app.pipelines.colours import Colours
from serve_app.pipelines.compose import Canvas
from serve_app.pipelines.estimate import Estimate

__all__ = ["Preview", "Previews", "framed"]

_log = structlog.get_logger()
Size = tuple[int, int]  # height and width, pixels


@dataclass(slots=True, eq=False)
class Preview:
    """The newest preview of one job.

    make: makes a JPEG of an estimate at a size. every: steps between two at least. first: steps of
    the job before those that it is told of.
    """

    make: Callable[[Estimate, Size], bytes]
    threads: ThreadPoolExecutor
    every: int
    first: int = 0
    newest: tuple[int, bytes] = field(default=(-1, b""))  # step that it shows
    _is_wanted: bool = False
    _step: int = -1

    def ask(self) -> tuple[int, bytes]:
        """Return the newest one with its step, -1 if there is none, and have a newer one made."""
        self._is_wanted = True
        return self.newest

    def see(self, step: int, estimate: Estimate, size: Size) -> None:
        """Begin a picture of a step's estimate if somebody wants one; on the engine thread."""
        step += self.first
        if self._is_wanted and (self._step < 0 or step - self._step >= self.every):
            self._is_wanted, self._step = False, step
            with contextlib.suppress(RuntimeError):  # shut down
                self.threads.submit(self._make, step, estimate, size)

    def go_on(self, before: "Preview") -> None:
        """Begin with what another has made, and with what is asked of it."""
        self.newest, self._is_wanted, self._step = before.newest, before._is_wanted, before._step

    def _make(self, step: int, estimate: Estimate, size: Size) -> None:
        try:
            self.newest = (step, self.make(estimate, size))
        except Exception:  # the job goes on without
            _log.exception("preview_failed")


class Previews:
    """Makes them for one painter."""

    def __init__(self, checkpoint: Checkpoint, config: EngineConfig) -> None:
        self._base: DiffusionPipeline = checkpoint.base
        self._colours = Colours(checkpoint.vaes.own.module)
        self._config = config
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="previews")

    def of(self, canvas: Canvas | None, before: Preview | None, first: int) -> Preview | None:
        """Return what will show a job; None: previews are off.

        before: showed the windows before this one, which took `first` steps.
        """
        if not self._config.preview_every_steps:
            return None

        def make(estimate: Estimate, size: Size) -> bytes:
            return encode_jpeg(framed(self._paint(estimate, size), size, canvas, self._side_px))

        preview = Preview(make, self._threads, self._config.preview_every_steps, first)
        if before is not None:
            preview.go_on(before)
        return preview

    def close(self) -> None:
        """Make no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    @property
    def _side_px(self) -> int:
        return self._config.preview_px

    @torch.inference_mode()
    def _paint(self, estimate: Estimate, size: Size) -> Image.Image:
        """Make a picture of one pixel for each latent cell."""
        latents = estimate.clean()[:1]
        if latents.ndim == 3:  # packed, as transformers take them
            factor = self._base.vae_scale_factor
            latents = self._base._unpack_latents(latents, *size, factor)
        colours = self._colours.of(latents[0]).mul(255).round().byte()
        return Image.fromarray(np.asarray(colours.cpu()))


def framed(image: Image.Image, size: Size, canvas: Canvas | None, side_px: int) -> Image.Image:
    """Enlarge it, and put what a crop shows into the picture that is inpainted."""
    height, width = size if canvas is None else (canvas.init.height, canvas.init.width)
    scale = min(1.0, side_px / max(height, width))
    whole = (max(1, round(width * scale)), max(1, round(height * scale)))
    if canvas is None or canvas.mask is None:
        return image.resize(whole, Image.Resampling.BICUBIC)
    left, top, right, bottom = (round(edge * scale) for edge in canvas.box)
    part = (max(1, right - left), max(1, bottom - top))
    frame = canvas.init.resize(whole, Image.Resampling.BILINEAR, reducing_gap=2)
    mask = canvas.mask.crop(canvas.box).resize(part, Image.Resampling.BILINEAR)
    frame.paste(image.resize(part, Image.Resampling.BICUBIC), (left, top), mask)
    return frame
