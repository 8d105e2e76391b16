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
from dataclasses import dataclass, replace
from threading import Event
from typing import TypeVar, TypeVarTuple

import numpy as np
import torch
from pydantic import JsonValue

from serve_app import errors
from serve_app.config import EngineConfig
from serve_app.engine.engine import Engine
from serve_app.engine.metrics import EngineSnapshot
from serve_app.engine.request import Progress, Request
from serve_app.models import ModelEntry
from serve_app.pipelines.addons.controlnets import ControlNet
from serve_app.pipelines.addons.ip_adapters import PicturePrompt
from serve_app.pipelines.addons.lookup import AddOns, NamedAddOns
from serve_app.pipelines.addons.lora_set import LoraSet
from serve_app.pipelines.addons.triggers import with_triggers
from serve_app.pipelines.addons.upscalers import Upscaler
from serve_app.pipelines.addons.vaes import Vae
from serve_app.pipelines.addons.variants import Variant
from serve_app.pipelines.checkpoint import Checkpoint
from serve_app.pipelines.compose import (
    Canvas,
    Pixels,
    encode,
    enlarge,
    open_canvas,
    open_controls,
    open_ip_picture,
    paste,
)
from serve_app.pipelines.control import Control
from serve_app.pipelines.previews import Preview, Previews
from serve_app.pipelines.row_cap_key import row_cap_store
from serve_app.pipelines.samplers.names import will_run
from serve_app.pipelines.specs import (
    check_kind,
    named_add_ons,
    ran_effects,
    ran_size,
    sample_specs,
    sized,
)
from serve_app.pipelines.text.rewrite import rewriter_of
from serve_app.pipelines.work import Painting, Sample
from serve_app.types import Cost, GenerationSpec, Kind, Picture, Pictures, PreparedImages, Sight

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
        self._at_work: dict[int, list[Sample]] = {}
        self._previews = Previews(checkpoint, config)
        try:
            self._warm_up()
        except BaseException:
            self.close()
            raise

    async def paint(
        self, job_id: int, spec: GenerationSpec, images: PreparedImages | None
    ) -> Pictures:
        """Paint all samples of a job; see the protocol."""
        began = time.monotonic()
        check_kind(spec, self._entry.kinds)
        asked, spec = spec, await self._rewrite(sized(spec, images))
        named = await self._bring(spec)
        spec = with_triggers(spec, named.triggers)
        with self._checkpoint.uses.holding(named.large):
            added = await self._add(spec, named)
            canvas, requests = await self._off_loop(self._pool, self._prepare, added, images)
            self._at_work[job_id] = [_sample(request) for request in requests]
            stop = Event()
            try:
                paintings = await self._run(requests)
                pictures = await asyncio.gather(
                    *(self._finish(painting, canvas, added, stop) for painting in paintings)
                )
            finally:
                stop.set()
                self._at_work.pop(job_id, None)
        return Pictures(
            pictures=tuple(pictures),
            nsfw=(False,) * len(pictures),
            generation_time_s=time.monotonic() - began,
            ran=_resolved(asked, spec) | _ran(spec, paintings[0], canvas, self._checkpoint),
            cost=_cost(requests),
        )

    def prefetch(self, spec: GenerationSpec) -> None:
        """Load the add-ons that a job names; see the protocol."""
        if self._num_hints < self._config.max_prefetches:
            with contextlib.suppress(RuntimeError):  # shut down
                checkpoint = weakref.ref(self._checkpoint)
                future = self._hints.submit(_prefetch, self._add_ons, checkpoint, spec)
                self._num_hints += 1
                future.add_done_callback(self._forget_hint)

    def progress(self) -> dict[int, float]:
        """Share of the steps done by job; see the protocol."""
        return {
            job_id: sum(sample.progress.share for sample in samples) / len(samples)
            for job_id, samples in self._at_work.items()
        }

    def look(self, watched: Mapping[int, int | None]) -> dict[int, Sight]:
        """How far watched jobs are; see the protocol."""
        return {
            job_id: _sight(self._at_work[job_id], newest)
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
        return self._engine.snapshot()

    def close(self, drain_s: float = 0.0) -> None:
        """Stop; jobs at hand get `drain_s` seconds to finish, then they fail."""
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
            chosen = _add(self._checkpoint, spec, NamedAddOns())
            request = self._request(chosen, spec, None, _Given())
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

    async def _add(self, spec: GenerationSpec, named: NamedAddOns) -> "_Added":
        """Load what a request names, unless it is loaded."""
        if named == NamedAddOns():
            return _add(self._checkpoint, spec, named)
        return await self._off_loop(self._loads, _add, self._checkpoint, spec, named)

    def _prepare(
        self, added: "_Added", images: PreparedImages | None
    ) -> tuple[Canvas | None, list[Request]]:
        """Decode the pictures and make a request per sample."""
        spec, native_px = added.spec, self._entry.native_size_px
        canvas = open_canvas(spec, images, native_px, self._config.crop_padding_px)
        if spec.panorama and self._checkpoint.family.denoiser != "unet":
            raise errors.InvalidRequest("panorama", "The model cannot paint through windows")
        given = _Given(_picture_prompt(added, images), _control(added, images))
        clip_skip = min(spec.clip_skip, self._checkpoint.max_clip_skip)
        spec = spec.model_copy(update={"clip_skip": clip_skip})
        first, *others = sample_specs(spec)
        shown = replace(given, preview=self._previews.of(canvas))
        requests = [self._request(added, one, canvas, given) for one in others]
        return canvas, [self._request(added, first, canvas, shown), *requests]

    def _request(
        self,
        added: "_Added",
        spec: GenerationSpec,
        canvas: Canvas | None,
        given: "_Given",
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
            preview=given.preview,
        )
        # The shape of a UNet's sample says its size; packed samples of transformers do not.
        key = None if self._checkpoint.family.denoiser == "unet" else size
        return Request(body, key=key, variant=body.variant, exclusive=spec.exclusive)

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
        return [result for result in results if isinstance(result, Painting)]

    async def _finish(
        self, painting: Painting, canvas: Canvas | None, added: "_Added", stop: Event
    ) -> Picture:
        """Make the picture of a sample, and enlarge it."""
        factor, upscaler = added.spec.upscale, added.upscaler
        pixels = await self._off_loop(self._pool, self._pixels, painting, canvas)
        if upscaler is None:
            return await self._off_loop(self._pool, _encode_enlarged, pixels, factor)
        larger = await self._off_loop(self._upscales, upscaler.enlarge, pixels, factor, stop)
        return await self._off_loop(self._pool, encode, larger)

    def _pixels(self, painting: Painting, canvas: Canvas | None) -> Pixels:
        """Check, copy from the device, paste."""
        if not painting.is_finite():
            raise errors.NonFiniteLatents()
        image = painting.image.permute(1, 2, 0).float().cpu().numpy()
        pixels: Pixels = (image * 255).round().astype(np.uint8)
        seam_px, match_tone = self._config.seam_px, self._config.match_tone
        return paste(pixels, canvas, seam_px, match_tone=match_tone)

    async def _off_loop(
        self, threads: ThreadPoolExecutor, work: Callable[[*Ts], R], *args: *Ts
    ) -> R:
        try:
            future = threads.submit(work, *args)
        except RuntimeError as exc:  # shut down
            raise errors.ReplicaLost("the painter is closed") from exc
        return await asyncio.wrap_future(future)


@dataclass(frozen=True, slots=True)
class _Added:
    """What a job adds to the checkpoint, and its spec with the embeddings' tokens in its texts."""

    spec: GenerationSpec
    tokens: tuple[str, ...]
    variant: Variant
    loras: LoraSet
    vae: Vae
    nets: tuple[ControlNet, ...] = ()
    upscaler: Upscaler | None = None


def _add(checkpoint: Checkpoint, spec: GenerationSpec, named: NamedAddOns) -> _Added:
    spec, tokens = checkpoint.embeddings.apply(spec, named.embeddings)
    variant = checkpoint.variants.of(spec, named)
    loras = checkpoint.loras.choose(spec.loras, named.loras)
    nets = checkpoint.controlnets.get(named.controlnets)
    vae, upscaler = checkpoint.vaes.get(named.vae), checkpoint.upscalers.get(named.upscaler)
    return _Added(spec, tokens, variant, loras, vae, nets, upscaler)


def _prefetch(add_ons: AddOns, checkpoint: "weakref.ref[Checkpoint]", spec: GenerationSpec) -> None:
    """Fetch and load; weights that are replaced meanwhile are not kept in memory for it."""
    with contextlib.suppress(errors.DreamserveError):
        named = add_ons.of(spec)
        loaded = checkpoint()
        if loaded is not None:
            with loaded.uses.holding(named.large):
                _add(loaded, spec, named)


@dataclass(frozen=True, slots=True)
class _Given:
    """What all samples of a job are shown besides the canvas; and who is shown the first."""

    prompt: PicturePrompt | None = None
    control: Control | None = None
    preview: Preview | None = None


def _picture_prompt(added: _Added, images: PreparedImages | None) -> PicturePrompt | None:
    """Encode the picture for the job's IP adapter: once for all samples, off the engine thread."""
    adapter, use = added.variant.ip_adapter, added.spec.ip_adapter
    picture = open_ip_picture(added.spec, images)
    if adapter is None or use is None or picture is None:
        return None
    return adapter.prompt(picture, use.scale)


def _control(added: _Added, images: PreparedImages | None) -> Control | None:
    if not added.nets:
        return None
    if added.spec.panorama:
        text = "panorama and ControlNets cannot be combined"
        raise errors.InvalidRequest("panorama", text)
    return Control.of(added.spec, added.nets, open_controls(added.spec, images))


def _encode_enlarged(pixels: Pixels, factor: int) -> Picture:
    return encode(enlarge(pixels, factor))


def _cost(requests: Sequence[Request]) -> Cost:
    return Cost(
        row_steps=sum(request.spent.row_steps for request in requests),
        device_s=sum(request.spent.device_s for request in requests),
    )


def _sample(request: Request) -> Sample:
    assert isinstance(request.body, Sample), "painters submit samples"
    return request.body


def _sight(samples: Sequence[Sample], newest: int | None) -> Sight:
    """Take the mean of all samples, which are mostly at the same step; the first one is shown."""
    done = sum(sample.progress.done for sample in samples) // len(samples)
    steps = max(sample.progress.total for sample in samples)
    preview = samples[0].preview
    if newest is None or preview is None:
        return Sight(done, steps)
    step, image = preview.ask()
    return Sight(done, steps, image if step > newest else b"", step)


def _ran(
    spec: GenerationSpec, painting: Painting, canvas: Canvas | None, checkpoint: Checkpoint
) -> dict[str, JsonValue]:
    """Return where what ran differs from what was asked."""
    ran: dict[str, JsonValue] = {}
    told = will_run(spec) | {"scheduler": spec.scheduler}
    ran |= {key: value for key, value in painting.sampler.items() if value != told[key]}
    if spec.clip_skip > checkpoint.max_clip_skip:
        ran["clip_skip"] = checkpoint.max_clip_skip
    if spec.tomesd and not checkpoint.variants.can_merge:
        ran["tomesd"] = "no"
    if spec.negative_prompt and not checkpoint.family.has_negative(spec.guidance_scale):
        ran["negative_prompt"] = ""
    if canvas is not None and canvas.size != (spec.height, spec.width):
        ran["crop"] = list(canvas.box)
    return ran | ran_effects(spec, checkpoint.native_px, checkpoint.multiple_px)


def _resolved(asked: GenerationSpec, spec: GenerationSpec) -> dict[str, JsonValue]:
    """Return what became of the prompt and of a size that was left open."""
    rewritten: dict[str, JsonValue] = {} if spec.prompt == asked.prompt else {"prompt": spec.prompt}
    return rewritten | ran_size(asked, spec)
