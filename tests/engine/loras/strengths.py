"""What tests of LoRAs share: strengths, and weights that were changed by hand."""

from collections.abc import Callable, Mapping
from pathlib import Path

import diffusers
import torch
from diffusers import DiffusionPipeline

from serve_app.config import EngineConfig
from serve_app.types import GenerationSpec, LoraUse
from tests.engine.lora_files import Made
from tests.engine.weaving import CPU

MakeSpec = Callable[..., GenerationSpec]

Tensors = dict[str, torch.Tensor]

VISIBLE = 0.02  # more than any difference that is allowed: the add-on does something


def stock_of(folder: Path) -> DiffusionPipeline:
    return diffusers.StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)


def using(*uses: tuple[str, float]) -> tuple[LoraUse, ...]:
    return tuple(LoraUse(id=name, strength=strength) for name, strength in uses)


def plus(made: Made, factor: float) -> Mapping[tuple[str, str], Callable[..., torch.Tensor]]:
    """W + factor * up @ down."""
    return {
        key: lambda weight, own=own: weight + factor * own.product() for key, own in made.items()
    }


def stingy(changes: Mapping[str, int]) -> EngineConfig:
    """Return the usual settings with less of something."""
    return CPU.model_copy(update=dict(changes))
