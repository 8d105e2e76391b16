"""`WeavePainter`: jobs in, pictures out, through the engine.

Pictures are decoded and encoded in a small thread pool, so that neither the event loop nor the
engine thread waits for them.
"""

import asyncio
import contextlib
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event
from typing import TypeVar, TypeVarTuple

import numpy as np
import torch

from serve_app import errors
from serve_app.config import EngineConfig
from serve_app.engine.engine import Engine
from serve_app.engine.metrics import EngineSnapshot
from serve_app.engine.request import Progress, Request
from serve_app.fairness import PLAIN, Stake
from serve_app.models import ModelEntry
from serve_app.pipelines import job_parts
from serve_app.pipelines.addons.lookup import AddOns, NamedAddOns
from serve_app.pipelines.addons.triggers import with_triggers
from serve_app.pipelines.checkpoint import Checkpoint
from serve_app.pipelines.compose import (
    Canvas,
    Framing,
    Pixels,
    encode,
    enlarge,
    open_canvas,
    paste,
    seam_px,
)
from serve_app.pipelines.job_parts import JobAddOns, JobPictures
from serve_app.pipelines.job_progress import JobProgress
from serve_app.pipelines.phases import record_phases
from serve_app.pipelines.previews import Preview, Previews
from serve_app.pipelines.ran import ran
from serve_app.pipelines.row_cap_key import row_cap_store
from serve_app.pipelines.specs import (
    check_kind,
    named_add_ons,
    sample_specs,
    sized,
)
from serve_app.pipelines.text.rewrite import rewriter_of
from serve_app.pipelines.windows import advanced, first_window, windows_after
from serve_app.pipelines.work import Painting, Sample
from serve_app.types import (
    GenerationSpec,
    Kind,
    Picture,
    Pictures,
    PreparedImages,
    Sight,
)

__all__ = ["WeavePainter"]

R = TypeVar("R")
Ts = TypeVarTuple("Ts")


class WeavePainter:
    """The real `pipelines.protocol.Painter`."""

    def __init__(
        self,
        entry: ModelEntry,
        config: EngineConfig,
        checkpoint: Checkpoint,
        add_ons: AddOns | None = None,
    ) -> None:
        self._entry = entry
        self._config = config
        self._checkpoint = checkpoint
        self._add_ons = add_ons or AddOns(entry.id)
        self._engine = Engine(
            config, checkpoint.variants.activate, row_cap_store(checkpoint, config)
        )
        self._rewriter = rewriter_of(config.translator, config.expander, config.expander_tokens)
        self._pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="pixels")
        # A job waits neither for the downloads of others nor for what is prefetched.
        self._fetches = ThreadPoolExecutor(config.fetch_threads, thread_name_prefix="fetches")
        self._loads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="add-ons")
        self._hints = ThreadPoolExecutor(max_workers=2, thread_name_prefix="prefetch")
        # One, for the memory of one tile; nobody else waits for its seconds.
        self._upscales = ThreadPoolExecutor(max_workers=1, thread_name_prefix="upscale")
        self._num_hints = 0
        self._at_work: dict[int, JobProgress] = {}
        self._previews = Previews(checkpoint, config)
        self._framing = Framing(
            entry.native_size_px,
            config.crop_padding_px,
            checkpoint.multiple_px,
            config.max_zoom,
        )
        try:
            self._warm_up()
            checkpoint.compiled.start()  # not before the row caps are measured
        except BaseException:
            self.close()
            raise

    async def paint(
        self, job_id: int, spec: GenerationSpec, images: PreparedImages | None, stake: Stake = PLAIN
    ) -> Pictures:
        """Paint all samples of a job; see the protocol."""
        began = time.monotonic()
        check_kind(spec, self._entry.kinds)
        asked, spec = spec, await self._rewrite(sized(spec, images))
        named = await self._bring(spec)
        spec = with_triggers(spec, named.triggers)
        with self._checkpoint.uses.holding(named.large):
            added = await self._add(spec, named)
            canvas, given = await self._off_loop(self._pool, self._open, added, images)
            stop, work = Event(), JobProgress(stake)
            self._at_work[job_id] = work
            try:
                paintings, frames = await self._paint(work, added, canvas, given)
                pictures = await asyncio.gather(
                    *(self._encoded(frame, added, stop) for frame in frames)
                )
            finally:
                stop.set()
                self._at_work.pop(job_id, None)
        return Pictures(
            pictures=tuple(pictures),
            nsfw=(False,) * len(pictures),
            generation_time_s=time.monotonic() - began,
            ran=ran(asked, spec, paintings[0], canvas, self._checkpoint),
            cost=work.cost(),
        )

    def prefetch(self, spec: GenerationSpec) -> None:
        """Load the add-ons that a job names; see the protocol."""
        if self._num_hints < self._config.max_prefetches:
            with contextlib.suppress(RuntimeError):  # shut down
                checkpoint = weakref.ref(self._checkpoint)
                future = self._hints.submit(job_parts.prefetch, self._add_ons, checkpoint, spec)
                self._num_hints += 1
                future.add_done_callback(self._forget_hint)

    def progress(self) -> dict[int, float]:
        """Share of the steps done by job; see the protocol."""
        return {job_id: work.share for job_id, work in self._at_work.items() if work.progress}

    def look(self, watched: Mapping[int, int | None]) -> dict[int, Sight]:
        """How far watched jobs are; see the protocol."""
        return {
            job_id: self._at_work[job_id].sight(newest)
            for job_id, newest in watched.items()
            if job_id in self._at_work
        }

    def weight_bytes(self) -> int:
        """Memory of the weights; see the protocol."""
        return self._checkpoint.num_bytes

    def check_health(self) -> None:
        """Raise RuntimeError when the engine is dead or stuck; see the protocol."""
        self._engine.check_health()

    def snapshot(self) -> EngineSnapshot:
        """Count what the engine did and holds."""
        found, compiled = self._engine.snapshot(), self._checkpoint.compiled
        return replace(found, compiled_shapes=compiled.shapes, compiled_forwards=compiled.forwards)

    def close(self, drain_s: float = 0.0) -> None:
        """Stop; jobs at hand get `drain_s` seconds to finish, then they fail."""
        self._checkpoint.compiled.stop()
        self._engine.close(drain_s)
        self._pool.shutdown()  # short work; its threads would hold this painter a little longer
        self._previews.close()
        for threads in (self._fetches, self._loads, self._hints, self._upscales):
            threads.shutdown(wait=False)

    def _warm_up(self) -> None:
        """Paint one step at each size to be expected: weights are sound, row caps are known.

        Raises:
            errors.GenerationFailed: the checkpoint cannot paint, or paints no numbers.
        """
        for side in (self._entry.native_size_px, *self._entry.warm_sizes_px):
            spec = GenerationSpec(
                model_id=self._entry.id,
                kind=Kind.TEXT2IMG,
                prompt="",
                height=side,
                width=side,
                steps=1,
                scheduler="DDIMScheduler",
                seed=0,
            )
            chosen = job_parts.load(self._checkpoint, spec, NamedAddOns())
            request = self._request(chosen, spec, None, JobPictures())
            request.measures = True
            painting = self._engine.submit(request).result()
            assert isinstance(painting, Painting), "samples give paintings"
            if not painting.is_finite():
                raise errors.NonFiniteLatents(self._entry.id)

    def _forget_hint(self, _future: object) -> None:
        self._num_hints -= 1

    async def _rewrite(self, spec: GenerationSpec) -> GenerationSpec:
        """Put the prompt in other words where that is asked for; most wait for nobody."""
        if spec.foreign or (spec.expand and self._config.expander is not None):
            return await self._off_loop(self._fetches, self._rewriter.apply, spec)
        return spec

    async def _bring(self, spec: GenerationSpec) -> NamedAddOns:
        """Fetch the files that a request names; most requests name none and do not wait."""
        if named_add_ons(spec):
            return await self._off_loop(self._fetches, self._add_ons.of, spec)
        return NamedAddOns()

    async def _add(self, spec: GenerationSpec, named: NamedAddOns) -> JobAddOns:
        """Load what a request names, unless it is loaded."""
        if named == NamedAddOns():
            return job_parts.load(self._checkpoint, spec, named)
        return await self._off_loop(self._loads, job_parts.load, self._checkpoint, spec, named)

    def _open(
        self, added: JobAddOns, images: PreparedImages | None
    ) -> tuple[Canvas | None, JobPictures]:
        """Decode the pictures of a job."""
        spec = added.spec
        if spec.panorama and self._checkpoint.family.denoiser != "unet":
            raise errors.InvalidRequest("panorama", "The model cannot paint through windows")
        canvas = open_canvas(spec, images, self._framing)
        if canvas is not None:
            canvas = first_window(canvas, spec, self._framing, self._config.outpaint_window)
        return canvas, job_parts.open_pictures(added, images)

    async def _paint(
        self, work: JobProgress, added: JobAddOns, canvas: Canvas | None, given: JobPictures
    ) -> tuple[list[Painting], list[Pixels]]:
        """Paint all samples side by side, window by window where a picture grows far."""
        clip_skip = min(added.spec.clip_skip, self._checkpoint.max_clip_skip)
        specs = sample_specs(added.spec.model_copy(update={"clip_skip": clip_skip}))
        canvases, framing = [canvas] * len(specs), self._framing
        done: list[Progress] = []
        work.num_samples = len(specs)
        while True:
            begun = sum(one.done for one in done[:: work.num_samples])
            work.preview = self._previews.of(canvases[0], work.preview, begun)
            requests = await self._off_loop(
                self._pool, self._requests, work, added, specs, canvases, given
            )
            more = await self._off_loop(self._pool, windows_after, canvases[0], framing)
            to_come = [Progress() for _ in range(more * len(canvases))]
            at_work = [_progress(request) for request in requests]
            work.progress = [*done, *at_work, *to_come]
            work.spent += [request.spent for request in requests]
            paintings = await self._run(requests)
            frames = await asyncio.gather(
                *(
                    self._off_loop(self._pool, self._finish, *pair, added.spec)
                    for pair in zip(paintings, canvases, strict=True)
                )
            )
            following = [
                following
                for pair in zip(canvases, frames, strict=True)
                if (following := await self._off_loop(self._pool, self._next, *pair, added.spec))
            ]
            if not following:
                return paintings, frames
            canvases, done = [*following], [*done, *at_work]

    def _next(self, canvas: Canvas | None, frame: Pixels, spec: GenerationSpec) -> Canvas | None:
        return None if canvas is None else advanced(canvas, frame, spec, self._framing)

    def _requests(
        self,
        work: JobProgress,
        added: JobAddOns,
        specs: Sequence[GenerationSpec],
        canvases: Sequence[Canvas | None],
        given: JobPictures,
    ) -> list[Request]:
        """Make a request per sample; noise that fills a mask is of the sample's own seed."""
        return [
            self._request(
                added,
                spec,
                canvas and canvas.with_fill(spec.fill, spec.seed),
                given,
                None if number else work.preview,
                work.stake,
            )
            for number, (spec, canvas) in enumerate(zip(specs, canvases, strict=True))
        ]

    def _request(
        self,
        added: JobAddOns,
        spec: GenerationSpec,
        canvas: Canvas | None,
        given: JobPictures,
        preview: Preview | None = None,
        stake: Stake = PLAIN,
    ) -> Request:
        size = canvas.size if canvas else (spec.height, spec.width)
        body = Sample(
            checkpoint=self._checkpoint,
            spec=spec,
            canvas=canvas,
            size=size,
            scheduler=self._checkpoint.schedulers.make(spec),
            variant=added.variant,
            progress=Progress(),
            loras=added.loras,
            vae=added.vae,
            tokens=added.tokens,
            prompt=given.prompt,
            control=given.control,
            preview=preview,
        )
        # The shape of a UNet's sample says its size; packed samples of transformers do not.
        key = None if self._checkpoint.family.denoiser == "unet" else size
        return Request(body, key=key, variant=body.variant, exclusive=spec.exclusive, stake=stake)

    async def _run(self, requests: Sequence[Request]) -> list[Painting]:
        """Wait for all samples; when one fails or the client leaves, the others are cancelled."""
        futures = [asyncio.wrap_future(self._engine.submit(request)) for request in requests]
        try:
            results = await asyncio.gather(*futures)
        except (errors.DreamserveError, asyncio.CancelledError):
            raise
        except torch.OutOfMemoryError as exc:
            raise errors.OutOfMemory(str(exc)) from exc
        except Exception as exc:
            raise errors.GenerationFailed(f"{type(exc).__name__}: {exc}") from exc
        finally:
            for future in futures:
                future.cancel()
            record_phases(requests)
        return [result for result in results if isinstance(result, Painting)]

    async def _encoded(self, frame: Pixels, added: JobAddOns, stop: Event) -> Picture:
        """Enlarge the picture of a sample, and make its file."""
        factor, upscaler = added.spec.upscale, added.upscaler
        if upscaler is None:
            return await self._off_loop(self._pool, _encode_enlarged, frame, factor)
        larger = await self._off_loop(self._upscales, upscaler.enlarge, frame, factor, stop)
        return await self._off_loop(self._pool, encode, larger)

    def _finish(self, painting: Painting, canvas: Canvas | None, spec: GenerationSpec) -> Pixels:
        """Check, copy from the device, paste."""
        if not painting.is_finite():
            raise errors.NonFiniteLatents()
        image = painting.image.permute(1, 2, 0).float().cpu().numpy()
        pixels: Pixels = (image * 255).round().astype(np.uint8)
        fade_px = seam_px(spec.masking, self._config.seam_px)
        return paste(pixels, canvas, fade_px, match_tone=self._config.match_tone)

    async def _off_loop(
        self, threads: ThreadPoolExecutor, work: Callable[[*Ts], R], *args: *Ts
    ) -> R:
        try:
            future = threads.submit(work, *args)
        except RuntimeError as exc:  # shut down
            raise errors.ReplicaLost("the painter is closed") from exc
        return await asyncio.wrap_future(future)


def _encode_enlarged(pixels: Pixels, factor: int) -> Picture:
    return encode(enlarge(pixels, factor))


def _progress(request: Request) -> Progress:
    assert isinstance(request.body, Sample), "painters submit samples"
    return request.body.progress
