"""`FakePainter`: pictures that depend on the spec alone, without torch, in no time or a set one."""

import asyncio
import hashlib
import time
from collections.abc import Mapping

import numpy as np
from PIL import Image

from serve_app import errors
from serve_app.engine.metrics import Counters, EngineSnapshot
from serve_app.fairness import PLAIN, Stake
from serve_app.images.codec import encode_jpeg
from serve_app.pipelines.compose import (
    Canvas,
    Framing,
    encode,
    enlarge,
    open_canvas,
    open_controls,
    open_ip_picture,
    paste,
)
from serve_app.pipelines.specs import check_kind, ran_effects, ran_size, sample_specs, sized
from serve_app.types import (
    Cost,
    GenerationSpec,
    Kind,
    Picture,
    Pictures,
    PreparedImages,
    Sight,
)

__all__ = ["FakePainter"]


class FakePainter:
    """Passes the same contract suite as the real painter.

    Args:
        step_s: seconds that one denoising step takes.
        native_px: least side of an inpaint's crop, pixels.
        kinds: what it paints.
        mark: changes every picture, as other weights would.
    """

    def __init__(
        self,
        step_s: float = 0.0,
        native_px: int = 512,
        kinds: tuple[Kind, ...] = tuple(Kind),
        mark: str = "",
    ) -> None:
        self._step_s = step_s
        self._native_px = native_px
        self._kinds = kinds
        self._mark = mark
        self._is_closed = False
        self._steps: dict[int, tuple[int, int]] = {}  # done and in all, by job
        self._counters = Counters()

    async def paint(
        self,
        job_id: int,
        spec: GenerationSpec,
        images: PreparedImages | None,
        stake: Stake = PLAIN,  # noqa: ARG002  # nobody waits for another here
    ) -> Pictures:
        """Paint all samples of a job; see the protocol."""
        began = time.monotonic()
        check_kind(spec, self._kinds)
        asked, spec = spec, sized(spec, images)
        canvas = open_canvas(spec, images, Framing(self._native_px, padding_px=32))
        shown = (open_ip_picture(spec, images), *_controls(spec, images))
        mark = self._mark
        for picture in shown:
            if picture is not None:
                mark += hashlib.sha256(picture.tobytes()).hexdigest()
        try:
            for step in range(spec.steps):
                self._steps[job_id] = step, spec.steps
                await asyncio.sleep(self._step_s)
                self._counters.spend("forward", self._step_s)
                self._counters.step(time.monotonic(), self._step_s, spec.samples, spec.samples)
                if self._is_closed:
                    raise errors.ReplicaLost("the painter is closed")
        finally:
            self._steps.pop(job_id, None)
        pictures = tuple(_picture(one, canvas, mark) for one in sample_specs(spec))
        self._counters.succeed(time.monotonic(), len(pictures))
        return Pictures(
            pictures=pictures,
            nsfw=(False,) * len(pictures),
            generation_time_s=time.monotonic() - began,
            ran=ran_size(asked, spec) | ran_effects(spec, self._native_px),
            cost=Cost(row_steps=spec.steps * spec.samples, device_s=spec.steps * self._step_s),
        )

    def prefetch(self, spec: GenerationSpec) -> None:
        """Nothing is loaded here; see the protocol."""

    def progress(self) -> dict[int, float]:
        """Share of the steps done by job; see the protocol."""
        return {job_id: step / steps for job_id, (step, steps) in self._steps.items()}

    def look(self, watched: Mapping[int, int | None]) -> dict[int, Sight]:
        """How far watched jobs are, with a grey preview of each step; see the protocol."""
        return {
            job_id: _sight(*self._steps[job_id], newest)
            for job_id, newest in watched.items()
            if job_id in self._steps
        }

    def snapshot(self) -> EngineSnapshot:
        """Count what was done; see the protocol."""
        return self._counters.snapshot(time.monotonic(), 0, len(self._steps), {})

    def weight_bytes(self) -> int:
        """There are no weights; see the protocol."""
        return 0

    def check_health(self) -> None:
        """Raise RuntimeError when closed; see the protocol."""
        if self._is_closed:
            raise RuntimeError("the painter is closed")

    def close(self) -> None:
        """Stop; jobs at work fail at their next step."""
        self._is_closed = True


def _sight(step: int, steps: int, newest: int | None) -> Sight:
    if newest is None or step <= max(0, newest):
        return Sight(step, steps, preview_step=-1 if newest is None else newest)
    grey = Image.new("L", (64, 64), 255 * step // steps)
    return Sight(step, steps, encode_jpeg(grey), step)


def _controls(
    spec: GenerationSpec, images: PreparedImages | None
) -> tuple[Image.Image | None, ...]:
    return open_controls(spec, images) if spec.acting_controlnets else ()


def _picture(spec: GenerationSpec, canvas: Canvas | None, mark: str) -> Picture:
    """Draw a plain colour with a little noise, all from a hash of the spec and the mark."""
    painted = spec.model_dump_json(exclude={"upscale"})  # what comes after the painting
    digest = hashlib.sha256((painted + mark).encode()).digest()
    random = np.random.default_rng(int.from_bytes(digest))
    height, width = canvas.size if canvas else (spec.height, spec.width)
    colour = random.integers(0, 224, 3)
    noise = random.integers(0, 32, (height, width, 3))
    pixels = paste((colour + noise).astype(np.uint8), canvas, fade_px=0)
    return encode(enlarge(pixels, spec.upscale))
