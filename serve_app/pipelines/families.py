"""The pipeline families: which stock class does which kind, and how a denoiser is called."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import diffusers
import torch
from diffusers import DiffusionPipeline

from serve_app.pipelines.transfer import beside
from serve_app.types import Kind

__all__ = ["FAMILIES", "PipelineFamily", "accepted", "family_of"]


@dataclass(frozen=True, slots=True)
class PipelineFamily:
    """What checkpoints of one architecture have in common.

    pipelines: stock pipeline class by kind.
    denoiser: name of the denoiser among the pipeline's components.
    names: of the denoiser's positional arguments, the sample first.
    shared: denoiser arguments without rows (position ids).
    has_clip_text: CLIP alone reads the prompt, so weights and long prompts can be applied.
    has_pooled: the pipeline also takes pooled text embeddings.
    upcasts_vae: the pipelines run the VAE in float32 when the rest is float16.
    is_distilled: the guidance scale is an input of the denoiser, so no row is for the negative
        prompt.
    controlled: stock pipeline class by kind for requests with ControlNets; empty: there are none.
    optional: denoiser arguments that only some calls have (what ControlNets add).
    """

    pipelines: Mapping[Kind, type[DiffusionPipeline]]
    denoiser: str
    names: tuple[str, ...]
    shared: frozenset[str] = frozenset({"joint_attention_kwargs", "cross_attention_kwargs"})
    has_clip_text: bool = False
    has_pooled: bool = False
    upcasts_vae: bool = False
    is_distilled: bool = False
    controlled: Mapping[Kind, type[DiffusionPipeline]] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()

    def has_negative(self, guidance_scale: float) -> bool:
        """Whether the negative prompt is looked at with this guidance."""
        return guidance_scale > 1 and not self.is_distilled


_UNET_NAMES = ("sample", "timestep", "encoder_hidden_states")
_DIT_NAMES = ("hidden_states",)
_RESIDUALS = frozenset({"down_block_additional_residuals", "mid_block_additional_residual"})


def _pipelines(prefix: str) -> dict[Kind, type[DiffusionPipeline]]:
    return {
        Kind.TEXT2IMG: getattr(diffusers, f"{prefix}Pipeline"),
        Kind.IMG2IMG: getattr(diffusers, f"{prefix}Img2ImgPipeline"),
        Kind.INPAINT: getattr(diffusers, f"{prefix}InpaintPipeline"),
    }


FAMILIES: Mapping[str, PipelineFamily] = {
    "StableDiffusion": PipelineFamily(
        _pipelines("StableDiffusion"),
        "unet",
        _UNET_NAMES,
        has_clip_text=True,
        controlled=_pipelines("StableDiffusionControlNet"),
        optional=_RESIDUALS,
    ),
    "StableDiffusionXL": PipelineFamily(
        _pipelines("StableDiffusionXL"),
        "unet",
        _UNET_NAMES,
        has_clip_text=True,
        has_pooled=True,
        upcasts_vae=True,
        controlled=_pipelines("StableDiffusionXLControlNet"),
        optional=_RESIDUALS,
    ),
    "StableDiffusion3": PipelineFamily(_pipelines("StableDiffusion3"), "transformer", _DIT_NAMES),
    "Flux": PipelineFamily(
        _pipelines("Flux"),
        "transformer",
        _DIT_NAMES,
        shared=frozenset({"joint_attention_kwargs", "img_ids", "txt_ids"}),
        is_distilled=True,
    ),
}


def family_of(pipeline: DiffusionPipeline) -> PipelineFamily:
    """Find the family of a loaded pipeline.

    Raises:
        ValueError: a pipeline class that is not served.
    """
    for family in FAMILIES.values():
        if type(pipeline) in family.pipelines.values():
            return family
    raise ValueError(f"{type(pipeline).__name__} is not served")


@functools.cache
def accepted(function: Callable[..., object]) -> inspect.Signature:
    """Return the signature of a pipeline class's method; cached, since it takes a while."""
    return inspect.signature(function)


def by_name(module: Callable[..., object], sample: str) -> Callable[[dict[str, object]], object]:
    """Call a module with its sample by position, where the hook of token merging looks for it."""

    def run(arguments: dict[str, object]) -> object:
        rest = dict(arguments)
        first = rest.pop(sample)
        assert isinstance(first, torch.Tensor), "the sample is a tensor"
        return module(first, **beside(first, rest))

    return run
