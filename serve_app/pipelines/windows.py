"""Pictures that grow by more than a model can see at once: painted window by window.

Windows have the native size and cover each other by half. The next one is always the one that has
most of what is known in it, so the picture grows outward from what was there. What a window has
painted is known to the next, which blends into it over the same overlap as into the old picture,
or, with a hard mask, by the seam alone.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from serve_app.pipelines.compose import Box, Canvas, Framing, Pixels, crop_box
from serve_app.pipelines.specs import window_starts
from serve_app.types import GenerationSpec, MaskMode

__all__ = ["advanced", "first_window", "windows_after"]

_OVERLAP = 0.5  # of a window that the next one covers too
_CELL_PX = 8


def first_window(canvas: Canvas, spec: GenerationSpec, framing: Framing, most: float) -> Canvas:
    """Begin with a window where the picture grows by more than the model sees.

    most: sides of up to so many native sizes are painted in one piece.
    """
    if spec.outpaint is None or spec.full_frame or canvas.mask is None:
        return canvas
    if max(canvas.size) <= most * framing.native_px:
        return canvas
    box = _next_box(np.asarray(canvas.mask) == 255, framing)
    return canvas if box is None else replace(canvas, box=box, painted=None)


def advanced(
    canvas: Canvas, frame: Pixels, spec: GenerationSpec, framing: Framing
) -> Canvas | None:
    """Go on to the next window; None when the frame, (H, W, 3), is whole."""
    if spec.outpaint is None or canvas.mask is None:
        return None
    shades = np.array(canvas.mask)
    left, top, right, bottom = canvas.box
    shades[top:bottom, left:right] = 0
    new = shades == 255
    box = _next_box(new, framing)
    if box is None:
        return None
    if spec.masking.mode is not MaskMode.HARD:  # else the overlap is as white as what is new
        shades = np.maximum(shades, _strip(new, spec.outpaint.overlap_px))
    return Canvas(Image.fromarray(frame), Image.fromarray(shades), box)


def windows_after(canvas: Canvas | None, framing: Framing) -> int:
    """Count the windows that follow the one of a canvas."""
    if canvas is None or canvas.mask is None:
        return 0
    new, box, count = np.asarray(canvas.mask) == 255, canvas.box, 0
    while True:
        new = _without(new, box)
        following = _next_box(new, framing)
        if following is None:
            return count
        box, count = following, count + 1


def _without(new: NDArray[np.bool_], box: Box) -> NDArray[np.bool_]:
    left, top, right, bottom = box
    rest = new.copy()
    rest[top:bottom, left:right] = False
    return rest


def _next_box(new: NDArray[np.bool_], framing: Framing) -> Box | None:
    """Choose the window with the least that is new, of those with any."""
    if not new.any():
        return None
    around = crop_box(
        Image.fromarray(new.view(np.uint8) * np.uint8(255)), framing.native_px, framing.padding_px
    )
    boxes = [
        (left, top, right, bottom)
        for top, bottom in _spans(around[1], around[3], framing.native_px)
        for left, right in _spans(around[0], around[2], framing.native_px)
    ]
    shares = {
        box: share
        for box in boxes
        if (share := float(new[box[1] : box[3], box[0] : box[2]].mean())) > 0
    }
    return min(shares, key=lambda box: shares[box])


def _spans(first: int, last: int, window: int) -> list[tuple[int, int]]:
    length = min(window, last - first)
    starts = window_starts((last - first) // _CELL_PX, length // _CELL_PX, _OVERLAP)
    return [(first + start * _CELL_PX, first + start * _CELL_PX + length) for start in starts]


def _strip(new: NDArray[np.bool_], overlap_px: int) -> NDArray[np.uint8]:
    """Shade what lies beside what is new, (H, W), as `images.outpaint` does at first."""
    away = ndimage.distance_transform_cdt(~new, "chessboard")
    shades = 255 * (1 - np.minimum(away, overlap_px + 1) / (overlap_px + 1))
    made: NDArray[np.uint8] = np.rint(shades).astype(np.uint8)
    return made
