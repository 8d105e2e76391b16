"""What stands where a picture is to be repainted, before the first step.

It counts at a strength below 1: what is painted then begins with a noised version of it. Works on
the part of the picture that the model sees. Telea and Navier-Stokes are OpenCV's (Telea 2004, "An
image inpainting technique based on the fast marching method"; Bertalmio et al. 2001).
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serve_app.pipelines.seam import Bytes, spread
from serve_app.types import Fill

__all__ = ["filled"]

Bools = NDArray[np.bool_]
_RADIUS_PX = 5.0  # of the pixels that OpenCV looks at around each one


def filled(picture: Image.Image, mask: Image.Image, fill: Fill, seed: int) -> Image.Image:
    """Fill the white of a mask; its greys keep what is there, as they are painted over less.

    picture: RGB. mask: mode L, of the same size. seed: of the noise.
    """
    white = np.asarray(mask) == 255
    if fill is Fill.ORIGINAL or not white.any():
        return picture
    values = np.asarray(picture)
    if fill is Fill.NOISE:
        made = _noise(values, white, seed)
    elif fill is Fill.BLUR or white.all():  # OpenCV would leave everything as it is
        made = _blur(values, white)
    else:
        made = _opencv(values, white, fill)
    return Image.fromarray(np.where(white[..., None], made, values))


def _noise(values: Bytes, white: Bools, seed: int) -> Bytes:
    """Draw pixels of what is kept: its colours and contrast, and nothing of its shapes."""
    kept = values[~white] if not white.all() else values.reshape(-1, 3)
    drawn = np.random.default_rng(seed).integers(len(kept), size=white.shape)
    return kept[drawn]


def _blur(values: Bytes, white: Bools) -> Bytes:
    """Spread the kept colours inward, the more blurred the further from the edge."""
    if white.all():
        return np.broadcast_to(values.mean((0, 1)), values.shape).astype(np.uint8)
    made = spread(values.astype(np.float32), ~white)
    return np.rint(np.clip(made, 0, 255)).astype(np.uint8)


def _opencv(values: Bytes, white: Bools, fill: Fill) -> Bytes:
    import cv2  # noqa: PLC0415  # a fifth of a second and 60 MB, which few requests need

    method = cv2.INPAINT_TELEA if fill is Fill.TELEA else cv2.INPAINT_NS
    made: Bytes = cv2.inpaint(values, white.astype(np.uint8), _RADIUS_PX, method)
    return made
