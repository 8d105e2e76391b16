"""`Sample`: the body of one engine request. It makes a stock pipeline and calls it."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from diffusers import DiffusionPipeline, SchedulerMixin
from PIL import Image
from pydantic import JsonValue
from torch.nn import functional

from serve_app.engine.request import Progress
from serve_app.pipelines.addons.ip_adapters import PicturePrompt
from serve_app.pipelines.addons.lora_set import NO_LORAS, LoraSet
from serve_app.pipelines.addons.loras import with_loras
from serve_app.pipelines.addons.vaes import Vae
from serve_app.pipelines.addons.variants import Variant
from serve_app.pipelines.checkpoint import Checkpoint
from serve_app.pipelines.compose import Canvas, all_touched, touched_cells
from serve_app.pipelines.control import Control, without_nothing
from serve_app.pipelines.estimate import Estimate, seen
from serve_app.pipelines.families import accepted
from serve_app.pipelines.guidance import guided, rescaled
from serve_app.pipelines.panorama import windowed
from serve_app.pipelines.previews import Preview
from serve_app.pipelines.proxy import Run
from serve_app.pipelines.samplers.schedulers import ran_sampler
from serve_app.pipelines.soft_mask import SoftMask
from serve_app.pipelines.specs import first_size, run_strength
from serve_app.pipelines.text.encoding import TextState, remember_encoding, text_arguments
from serve_app.types import GenerationSpec, Kind

__all__ = ["Painting", "Sample"]


@dataclass(frozen=True, slots=True)
class Painting:
    """What the model made, on the device: still to be checked, copied and composed.

    image: (3, H, W) in [0, 1]. latents: of the last step. sampler: what ran, as `meta` says it.
    """

    image: torch.Tensor
    latents: torch.Tensor
    sampler: Mapping[str, JsonValue]

    def is_finite(self) -> bool:
        """Whether neither latents nor pixels have NaN or infinities. Waits for the device."""
        return bool(torch.isfinite(self.latents).all() and torch.isfinite(self.image).all())


@dataclass(frozen=True, slots=True)
class Sample:
    """Paints one picture of a job when called; runs on the engine thread, inside a strand.

    spec: with the seed of this sample. size: height and width that the model works at, pixels.
    scheduler: of this sample alone. variant: applied by the engine while it runs. loras: of its
    rows.
    vae: none: the checkpoint's own. tokens: of the embeddings that the spec's texts hold.
    prompt: the picture for the variant's IP adapter. control: ControlNets and their pictures.
    preview: shows those who watch what is painted so far.
    """

    checkpoint: Checkpoint
    spec: GenerationSpec
    canvas: Canvas | None
    size: tuple[int, int]
    scheduler: SchedulerMixin
    variant: Variant
    progress: Progress
    loras: LoraSet = NO_LORAS
    vae: Vae | None = None
    tokens: tuple[str, ...] = ()
    prompt: PicturePrompt | None = None
    control: Control | None = None
    preview: Preview | None = None

    def __call__(self) -> Painting:
        """Run the stock pipeline; twice for the highres fix, the second time on the first's."""
        checkpoint = self.checkpoint
        checkpoint.embeddings.load(self.tokens)
        small = first_size(self.spec, checkpoint.native_px, checkpoint.multiple_px)
        if small is None:
            strength = run_strength(self.spec)
            only = _Pass(self.spec.kind, self.size, self.scheduler, self.spec.steps, strength)
            return self._run(only)
        wanted = _second(self.spec, checkpoint.config.highres_strength)
        steps, strength = self.spec.steps, run_strength(wanted)
        more = int(wanted.steps * strength)  # as the pipelines round it
        first = self._run(_Pass(Kind.TEXT2IMG, small, self.scheduler, steps, 1.0, more=more))
        return self._run(
            _Pass(
                Kind.IMG2IMG,
                self.size,
                checkpoint.schedulers.make(wanted),
                wanted.steps,
                strength,
                start=_enlarge(first.image, self.size),
            )
        )

    def _run(self, this: "_Pass") -> Painting:
        kind = Kind.INPAINT if self.checkpoint.is_inpaint_only else this.kind
        controlnet = None if self.control is None else self.control.stand_in()
        pipeline = self.checkpoint.pipeline(
            kind, this.scheduler, self.vae, lambda run: self._around(run, kind), controlnet
        )
        latents: list[torch.Tensor] = []
        soft = self._soft_mask(pipeline, this)
        before = 0 if this.start is None else self.progress.done

        def after_step(
            running: DiffusionPipeline, step: int, _timestep: object, state: dict[str, torch.Tensor]
        ) -> dict[str, torch.Tensor]:
            steps = int(running.num_timesteps)  # of some samplers twice as many as were asked for
            if before == 0:
                self.progress.total = steps + this.more * steps // this.steps
            left = self.progress.total - before
            self.progress.done = before + (step + 1) * (left if before else steps) // steps
            latents[:] = [state["latents"]]
            if soft is None:
                return {}
            latents[:] = [soft.after(running, step, latents[0])]
            return {"latents": latents[0]}

        arguments = self._arguments(pipeline, kind, this)
        with self._shown(this):
            image = pipeline(**arguments, callback_on_step_end=after_step)[0]
        return Painting(image[0], latents[0], ran_sampler(this.scheduler, self.spec))

    def _shown(self, this: "_Pass") -> contextlib.AbstractContextManager[None]:
        """Show the estimate of each step to the preview, if there is one."""
        preview = self.preview
        if preview is None:
            return contextlib.nullcontext()

        def see(estimate: Estimate) -> None:
            preview.see(self.progress.done + 1, estimate, this.size)

        return seen(this.scheduler, see)

    def _around(self, run: Run, kind: Kind) -> Run:
        """Add what a request asks for around each call of the denoiser."""
        checkpoint, config = self.checkpoint, self.checkpoint.config
        sample, shared = checkpoint.family.names[0], checkpoint.family.shared
        if self.control is not None:
            run = without_nothing(run)
        if self.spec.panorama:
            run = windowed(
                run,
                sample,
                shared,
                checkpoint.native_cells,
                config.panorama_overlap,
                config.panorama_windows,
            )
        if self.spec.self_attention:
            run = guided(run, sample, shared, config.self_attention_scale)
        if self.prompt is not None:
            run = self.prompt.beside(run, sample)
        rescales = checkpoint.can_rescale(kind, is_controlled=self.control is not None)
        if checkpoint.guidance_rescale and not rescales:
            run = rescaled(run, self.spec.guidance_scale, checkpoint.guidance_rescale)
        return with_loras(run, sample, self.loras)  # the outermost: all others repeat its rows

    def _arguments(
        self, pipeline: DiffusionPipeline, kind: Kind, this: "_Pass"
    ) -> dict[str, object]:
        """Name everything any pipeline may take, and keep what this one does."""
        spec = self.spec
        height, width = this.size
        arguments: dict[str, object] = {
            **self._text(pipeline),
            "height": height,
            "width": width,
            "num_inference_steps": this.steps,
            "guidance_scale": spec.guidance_scale,
            "guidance_rescale": self.checkpoint.guidance_rescale,
            "generator": torch.Generator().manual_seed(spec.seed),  # CPU: equal on every device
            "clip_skip": spec.clip_skip - 1 or None,  # diffusers counts the layers left out
            "output_type": "pt",
            "return_dict": False,
        }
        if kind is not Kind.TEXT2IMG:
            arguments["strength"] = this.strength
            arguments["image"], arguments["mask_image"] = self._pictures(this)
        if self.control is not None:
            box = None if self.canvas is None else self.canvas.box
            init, mask = arguments.get("image"), arguments.get("mask_image")
            arguments |= self.control.arguments(kind, box, init, mask)
        names = accepted(type(pipeline).__call__).parameters
        return {name: value for name, value in arguments.items() if name in names}

    def _text(self, pipeline: DiffusionPipeline) -> Mapping[str, object]:
        loras, texts = self.loras, self.checkpoint.texts
        under = TextState(loras.of_text, lambda: self.checkpoint.loras.in_text(loras))
        if self.checkpoint.family.has_clip_text:
            unread = self.checkpoint.embeddings.unread(self.tokens)
            return text_arguments(pipeline, self.spec, texts, under, unread)
        remember_encoding(pipeline, texts, under)
        return {"prompt": self.spec.prompt, "negative_prompt": self.spec.negative_prompt or None}

    def _pictures(self, this: "_Pass") -> tuple[Image.Image | torch.Tensor, Image.Image]:
        """Init and mask; a checkpoint that only inpaints repaints the whole of a grey init."""
        height, width = this.size
        white = Image.new("L", (width, height), 255)
        if this.start is not None:
            return this.start, white
        if self.canvas is None:
            return Image.new("RGB", (width, height), (128, 128, 128)), white
        shades = self.canvas.shades()
        mask = white if shades is None else all_touched(self._cells(shades))
        return self.canvas.seen(), mask

    def _cells(self, shades: Image.Image) -> Image.Image:
        return touched_cells(shades, int(self.checkpoint.base.vae_scale_factor))

    def _soft_mask(self, pipeline: DiffusionPipeline, this: "_Pass") -> SoftMask | None:
        shades = None if self.canvas is None or this.start is not None else self.canvas.shades()
        if shades is None or not any(shades.histogram()[1:255]):
            return None
        return SoftMask(pipeline, self._cells(shades))


def _second(spec: GenerationSpec, strength: float) -> GenerationSpec:
    """Paint over with this share of the steps, in a schedule of at least two.

    The one step of a schedule of one begins with noise alone and would lose the first pass.
    """
    steps = max(spec.steps, 2)
    return spec.model_copy(update={"kind": Kind.IMG2IMG, "strength": strength, "steps": steps})


@dataclass(frozen=True, slots=True)
class _Pass:
    """One call of a stock pipeline.

    size: height and width, pixels. start: picture to paint over, (1, 3, height, width) in [0, 1];
    none: the canvas', if any. more: steps of the pass that is to follow.
    """

    kind: Kind
    size: tuple[int, int]
    scheduler: SchedulerMixin
    steps: int
    strength: float
    start: torch.Tensor | None = None
    more: int = 0


def _enlarge(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resample a picture (3, H, W) in [0, 1] on its device; gives (1, 3, height, width)."""
    large = functional.interpolate(image[None].float(), size, mode="bicubic", antialias=True)
    return large.clamp(0, 1).to(image.dtype)
