"""`Sample`: the body of one engine request. It makes a stock pipeline and calls it."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from diffusers import DiffusionPipeline, SchedulerMixin
from PIL import Image

from serve_app.engine.request import Progress
from serve_app.pipelines.checkpoint import Checkpoint
from serve_app.pipelines.compose import Canvas
from serve_app.pipelines.embeds import remember_encoding, text_arguments
from serve_app.pipelines.families import accepted
from serve_app.pipelines.specs import run_strength
from serve_app.pipelines.variants import Variant
from serve_app.types import GenerationSpec, Kind

__all__ = ["Painting", "Sample"]


@dataclass(frozen=True, slots=True)
class Painting:
    """What the model made, on the device: still to be checked, copied and composed.

    image: (3, H, W) in [0, 1]. latents: of the last step. scheduler: the class that ran.
    """

    image: torch.Tensor
    latents: torch.Tensor
    scheduler: str

    def is_finite(self) -> bool:
        """Whether neither latents nor pixels have NaN or infinities. Waits for the device."""
        return bool(torch.isfinite(self.latents).all() and torch.isfinite(self.image).all())


@dataclass(frozen=True, slots=True)
class Sample:
    """Paints one picture of a job when called; runs on the engine thread, inside a strand.

    spec: with the seed of this sample. size: height and width that the model works at, pixels.
    scheduler: of this sample alone. variant: applied by the engine while it runs.
    """

    checkpoint: Checkpoint
    spec: GenerationSpec
    canvas: Canvas | None
    size: tuple[int, int]
    scheduler: SchedulerMixin
    variant: Variant
    progress: Progress

    def __call__(self) -> Painting:
        """Run the stock pipeline."""
        kind = Kind.INPAINT if self.checkpoint.is_inpaint_only else self.spec.kind
        pipeline = self.checkpoint.pipeline(kind, self.scheduler, self.spec.vae or "")
        remember_encoding(pipeline, self.checkpoint.texts, self.variant.loras)
        latents: list[torch.Tensor] = []

        def after_step(
            running: DiffusionPipeline, step: int, _timestep: object, state: dict[str, torch.Tensor]
        ) -> dict[str, torch.Tensor]:
            self.progress.total = running.num_timesteps
            self.progress.done = step + 1
            latents[:] = [state["latents"]]
            return {}

        image = pipeline(**self._arguments(pipeline, kind), callback_on_step_end=after_step)[0]
        return Painting(image[0], latents[0], type(self.scheduler).__name__)

    def _arguments(self, pipeline: DiffusionPipeline, kind: Kind) -> dict[str, object]:
        """Name everything any pipeline may take, and keep what this one does."""
        spec = self.spec
        height, width = self.size
        arguments: dict[str, object] = {
            **self._text(pipeline),
            "height": height,
            "width": width,
            "num_inference_steps": spec.steps,
            "guidance_scale": spec.guidance_scale,
            "generator": torch.Generator().manual_seed(spec.seed),  # CPU: equal on every device
            "clip_skip": spec.clip_skip - 1 or None,  # diffusers counts the layers left out
            "output_type": "pt",
            "return_dict": False,
        }
        if kind is not Kind.TEXT2IMG:
            arguments["strength"] = run_strength(spec)
            arguments["image"], arguments["mask_image"] = self._pictures()
        names = accepted(type(pipeline).__call__).parameters
        return {name: value for name, value in arguments.items() if name in names}

    def _text(self, pipeline: DiffusionPipeline) -> Mapping[str, object]:
        if self.checkpoint.family.has_clip_text:
            checkpoint, loras = self.checkpoint, self.variant.loras
            return text_arguments(pipeline, self.spec, checkpoint.texts, loras)
        return {"prompt": self.spec.prompt, "negative_prompt": self.spec.negative_prompt or None}

    def _pictures(self) -> tuple[Image.Image, Image.Image]:
        """Crop init and mask; a checkpoint that only inpaints repaints the whole of a grey init."""
        height, width = self.size
        if self.canvas is None:
            grey = Image.new("RGB", (width, height), (128, 128, 128))
            return grey, Image.new("L", (width, height), 255)
        init = self.canvas.init.crop(self.canvas.box)
        if self.canvas.mask is None:
            return init, Image.new("L", (width, height), 255)
        return init, self.canvas.mask.crop(self.canvas.box)
