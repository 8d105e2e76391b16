"""Pictures that grow by more than a model can see at once: painted window by window.

What a window has painted is known to the next, which blends into it over the same overlap as into
the old picture, or, with a hard mask, by the seam alone.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from serve_app.pipelines.compose import Box, Canvas, Framing, Pixels
from serve_app.pipelines.unpainted import Unpainted
from serve_app.types import GenerationSpec, MaskMode

__all__ = ["advanced", "first_window", "windows_after"]


def first_window(canvas: Canvas, spec: GenerationSpec, framing: Framing, most: float) -> Canvas:
    """Begin with a window where the picture grows by more than the model sees.

    most: sides of up to so many native sizes are painted in one piece.
    """
    if spec.outpaint is None or spec.full_frame or canvas.mask is None:
        return canvas
    if max(canvas.size) <= most * framing.native_px:
        return canvas
    box = Unpainted.of(np.asarray(canvas.mask) == 255).next_box(framing)
    return canvas if box is None else replace(canvas, box=box, painted=None)


def advanced(
    canvas: Canvas, frame: Pixels, spec: GenerationSpec, framing: Framing
) -> Canvas | None:
    """Go on to the next window; None when the frame, (H, W, 3), is whole."""
    if spec.outpaint is None or canvas.mask is None:
        return None
    shades = _rest(canvas.mask, canvas.box)
    new = shades == 255
    box = Unpainted.of(new).next_box(framing)
    if box is None:
        return None
    if spec.masking.mode is not MaskMode.HARD:  # else the overlap is as white as what is new
        shades = np.maximum(shades, _strip(new, spec.outpaint.overlap_px))
    return Canvas(Image.fromarray(frame), Image.fromarray(shades), box)


def windows_after(canvas: Canvas | None, framing: Framing) -> int:
    """Count the windows that follow the one of a canvas."""
    if canvas is None or canvas.mask is None:
        return 0
    return Unpainted.of(_rest(canvas.mask, canvas.box) == 255).num_windows(framing)


def _rest(mask: Image.Image, box: Box) -> NDArray[np.uint8]:
    """Blacken what a window paints, whose box need not lie on cells."""
    left, top, right, bottom = box
    shades = np.array(mask)
    shades[top:bottom, left:right] = 0
    return shades


def _strip(new: NDArray[np.bool_], overlap_px: int) -> NDArray[np.uint8]:
    """Shade what lies beside what is new, (H, W), as `images.outpaint` does at first."""
    away = ndimage.distance_transform_cdt(~new, "chessboard")
    shades = 255 * (1 - np.minimum(away, overlap_px + 1) / (overlap_px + 1))
    made: NDArray[np.uint8] = np.rint(shades).astype(np.uint8)
    return made
