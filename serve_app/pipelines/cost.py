"""What a job costs in denoiser work, effects included; the `eta` is derived from it. No torch."""

import math

from serve_app.config import EngineConfig
from serve_app.pipelines.specs import first_size, run_strength, window_starts
from serve_app.types import GenerationSpec

__all__ = ["denoiser_work"]

_NET = 0.5  # of the denoiser's work for the same rows: benchmarks/README.md, "ControlNets"


def denoiser_work(
    spec: GenerationSpec, native_px: int, config: EngineConfig, multiple_px: int = 8
) -> float:
    """Count rows x steps x megapixels of all forwards of a job, those of ControlNets in part.

    An inpaint counts its whole frame: how large its crop is only the mask tells.

    Args:
        native_px: side that the model was trained at.
        config: of the engine that paints it.
        multiple_px: sides are multiples of it.
    """
    rows: float = (2 if spec.guidance_scale > 1 else 1) + spec.self_attention
    rows *= 1 + _NET * (spec.control_end - spec.control_start) * len(spec.acting_controlnets)
    first = first_size(spec, native_px, multiple_px)
    if first is not None:
        again = math.ceil(spec.steps * config.highres_strength)
        pixel_steps = spec.steps * math.prod(first) + again * spec.height * spec.width
    else:
        steps = math.ceil(spec.steps * run_strength(spec) - 1e-6)
        pixel_steps = steps * _pixels(spec, native_px, config.panorama_overlap)
    return spec.samples * rows * pixel_steps / 1e6


def _pixels(spec: GenerationSpec, native_px: int, overlap: float) -> int:
    """Count the pixels of one step; the windows of a panorama see many of them twice."""
    if not spec.panorama:
        return spec.height * spec.width
    sides = (spec.height, spec.width)
    windows = math.prod(len(window_starts(side, native_px, overlap)) for side in sides)
    return windows * math.prod(min(side, native_px) for side in sides)
