"""What a job costs in denoiser work, effects included; the `eta` is derived from it. No torch."""

import functools
import math

import numpy as np

from serve_app.config import EngineConfig
from serve_app.images.outpaint import prepared_size
from serve_app.pipelines.compose import Framing, box_around
from serve_app.pipelines.specs import first_size, run_strength, window_starts
from serve_app.pipelines.unpainted import CELL_PX, Unpainted
from serve_app.types import GenerationSpec, Outpaint

__all__ = ["denoiser_work"]

_NET = 0.5  # of the denoiser's work for the same rows: benchmarks/README.md, "ControlNets"


def denoiser_work(
    spec: GenerationSpec, native_px: int, config: EngineConfig, multiple_px: int = 8
) -> float:
    """Count rows x steps x megapixels of all forwards of a job, those of ControlNets in part.

    An inpaint counts its whole frame, or the native size where only the mask is shown: how large
    its crop is only the mask tells. A picture that grows counts its windows, as if what grows had
    the native size, unless the request says what it is brought to.

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
        pixel_steps = steps * _pixels(spec, native_px, config)
    return spec.samples * rows * pixel_steps / 1e6


def _pixels(spec: GenerationSpec, native_px: int, config: EngineConfig) -> int:
    """Count the pixels of one step; windows see many of them twice."""
    whole = spec.height * spec.width
    if spec.panorama:
        sides = (spec.height, spec.width)
        starts = (window_starts(side, native_px, config.panorama_overlap) for side in sides)
        windows = math.prod(len(one) for one in starts)
        return windows * math.prod(min(side, native_px) for side in sides)
    if spec.full_frame:
        return whole
    if spec.outpaint is not None:
        padding_px = config.crop_padding_px if spec.padding_px is None else spec.padding_px
        size, framing = (spec.height, spec.width), Framing(native_px, padding_px)
        return _grown(spec.outpaint, size, framing, config.outpaint_window)
    return min(whole, native_px**2) if spec.only_masked else whole


@functools.lru_cache(maxsize=256)
def _grown(plan: Outpaint, size: tuple[int, int], framing: Framing, most: float) -> int:
    """Count the pixels of one step of all windows, as far as they can be told beforehand.

    size: height and width to expect. most: native sizes of a side that is painted in one piece.
    """
    height, width = size
    native_px = framing.native_px
    if plan.anchor is None:
        old_width, old_height = width - plan.left - plan.right, height - plan.top - plan.bottom
        left, top = plan.left, plan.top
    else:
        old_width, old_height = prepared_size(plan, (native_px, native_px))
        left = round((width - old_width) * plan.anchor[0])
        top = round((height - old_height) * plan.anchor[1])
    new = np.ones((height // CELL_PX, width // CELL_PX), np.bool_)
    down, across = (
        slice(start // CELL_PX, (start + side) // CELL_PX)
        for start, side in ((top, old_height), (left, old_width))
    )
    new[down, across] = False
    unpainted = Unpainted.of_cells(new)
    first, upper, last, lower = unpainted.bounds() or (0, 0, 1, 1)
    more = plan.overlap_px
    white = (
        max(0, first - more),
        max(0, upper - more),
        min(width, last + more),
        min(height, lower + more),
    )
    box = box_around(white, (width, height), native_px, framing.padding_px)
    sides = (box[2] - box[0], box[3] - box[1])
    if max(sides) <= most * native_px:
        return math.prod(sides)
    return unpainted.num_windows(framing) * math.prod(min(side, native_px) for side in sides)
