"""`Checkpoint`: one model's loaded weights, and the stock pipelines made from them per request."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from diffusers import DiffusionPipeline, SchedulerMixin
from torch import nn

from serve_app.config import EngineConfig
from serve_app.engine.lane import Lane
from serve_app.pipelines import latent_scale
from serve_app.pipelines.addons.controlnets import ControlNets
from serve_app.pipelines.addons.loras import LORA_ROWS, Loras
from serve_app.pipelines.addons.lru import Uses, num_bytes
from serve_app.pipelines.addons.textual_inversion import Embeddings
from serve_app.pipelines.addons.upscalers import Upscalers
from serve_app.pipelines.addons.vaes import Vae, Vaes
from serve_app.pipelines.addons.variants import Variants
from serve_app.pipelines.compiled import Compiled
from serve_app.pipelines.families import PipelineFamily, accepted, by_name
from serve_app.pipelines.proxy import Run, denoiser_stand_in, stand_in, vae_stand_in
from serve_app.pipelines.samplers.schedulers import Schedulers
from serve_app.pipelines.text.encoding import TextCache
from serve_app.types import Kind

__all__ = ["Checkpoint", "denoiser_lane", "on_device"]

_MARKS = frozenset({LORA_ROWS})
_INPAINT_CHANNELS = 9  # noisy latents 4, mask 1, latents of the masked picture 4


@dataclass(slots=True, eq=False, weakref_slot=True)
class Checkpoint:
    """Weights shared by all requests.

    base: the stock pipeline that was loaded; never called, it holds the components.
    pipelines: the family's classes, for the device of the weights. controlled: those for requests
        with ControlNets.
    compiled: runs the denoiser for the lane.
    vaes, embeddings: its own and those that requests named.
    variants: what changes its modules. loras: what is added to their layers, row by row.
    uses: LoRAs, VAEs and others of the jobs at work.
    texts: text embeddings made lately.
    native_px: side that it was trained at, pixels. multiple_px: sides are multiples of it.
    guidance_rescale: share by which guided predictions get the contrast of unguided ones.
    """

    base: DiffusionPipeline
    family: PipelineFamily
    pipelines: Mapping[Kind, type[DiffusionPipeline]]
    controlled: Mapping[Kind, type[DiffusionPipeline]]
    denoiser: Lane
    compiled: Compiled
    schedulers: Schedulers
    vaes: Vaes
    variants: Variants
    loras: Loras
    embeddings: Embeddings
    controlnets: ControlNets
    upscalers: Upscalers
    uses: Uses
    texts: TextCache
    native_px: int
    multiple_px: int
    config: EngineConfig
    guidance_rescale: float = 0.0

    @property
    def is_inpaint_only(self) -> bool:
        """Whether the UNet wants a mask, so that every kind is run as an inpainting."""
        module = getattr(self.base, self.family.denoiser)
        return bool(module.config.in_channels == _INPAINT_CHANNELS)

    @property
    def max_clip_skip(self) -> int:
        """Largest `clip_skip` that every CLIP text encoder has layers for; 1 if none is asked."""
        if "clip_skip" not in accepted(self.family.pipelines[Kind.TEXT2IMG].__call__).parameters:
            return 1
        encoders = (getattr(self.base, name, None) for name in ("text_encoder", "text_encoder_2"))
        layers = [
            encoder.config.num_hidden_layers
            for encoder in encoders
            if encoder is not None and encoder.config.model_type == "clip_text_model"
        ]
        return max(1, min(layers, default=1))

    def can_rescale(self, kind: Kind, *, is_controlled: bool) -> bool:
        """Whether the stock pipeline of a kind rescales guided predictions itself."""
        pipelines = self.controlled if is_controlled else self.pipelines
        return "guidance_rescale" in accepted(pipelines[kind].__call__).parameters

    @property
    def num_bytes(self) -> int:
        """Memory of the model's own weights; what requests named is small beside them."""
        parts = self.base.components.values()
        return num_bytes(*(part for part in parts if isinstance(part, nn.Module)))

    @property
    def native_cells(self) -> int:
        """Side that it was trained at, latent cells."""
        return self.native_px // int(self.base.vae_scale_factor)

    def pipeline(
        self,
        kind: Kind,
        scheduler: SchedulerMixin,
        vae: Vae | None = None,
        around: Callable[[Run], Run] = lambda run: run,
        controlnet: nn.Module | None = None,
    ) -> DiffusionPipeline:
        """Make a request's own pipeline: shared weights, proxies, its own scheduler.

        Constructors rewrite the scheduler's config, so the scheduler has to be there from the
        start. Takes less than a millisecond.
        """
        cls = self.pipelines[kind] if controlnet is None else self.controlled[kind]
        parts = dict(self.base.config) | self.base.components
        parts |= {"scheduler": scheduler, "controlnet": controlnet}
        vae = vae or self.vaes.own
        parts["vae"] = vae_stand_in(vae.module, vae.encoder, vae.decoder)
        latent_scale.complete(parts["vae"], cls)
        name = self.family.denoiser
        parts[name] = denoiser_stand_in(parts[name], self.denoiser, self.family.names, around)
        for name in ("text_encoder", "text_encoder_2"):
            if isinstance(parts.get(name), nn.Module):
                parts[name] = _text_encoder_stand_in(parts[name])
        parts |= {"requires_safety_checker": False, "add_watermarker": False}
        names = accepted(cls.__init__).parameters
        pipeline = cls(**{name: value for name, value in parts.items() if name in names})
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


def on_device(cls: type[DiffusionPipeline], device: torch.device) -> type[DiffusionPipeline]:
    """Fix the device of a pipeline class, which would search every module for it twice a request.

    It took 3 ms with the demo checkpoint, during which nobody's next step could run.
    """
    known = property(lambda _: device)
    return type(cls.__name__, (cls,), {"_execution_device": known, "device": known})


def _text_encoder_stand_in(encoder: nn.Module) -> nn.Module:
    """Add to CLIP the `text_model` that diffusers 0.42 looks for when clip_skip is asked for.

    transformers 5.6 made CLIPTextModel and its `text_model` one.
    """
    if hasattr(encoder, "text_model"):
        return encoder
    copied = stand_in(encoder, encoder.forward)
    copied.__dict__["text_model"] = encoder
    return copied


def denoiser_lane(
    base: DiffusionPipeline,
    family: PipelineFamily,
    compiled: Compiled,
    reading: Callable[[Run], Run],
    loras: Loras,
) -> Lane:
    """Make the lane of a pipeline's denoiser.

    compiled: runs it where there is a graph.
    reading: takes arguments out that are not the module's own.
    loras: of the pipeline.
    """
    plain = reading(by_name(getattr(base, family.denoiser), family.names[0]))
    knows = reading(compiled.knows) if compiled.is_on else None
    run = loras.reading(reading(compiled.run), plain, knows)
    measured = loras.reading(plain, plain)
    return Lane("denoiser", run, family.shared, family.optional, marks=_MARKS, plain=measured)
