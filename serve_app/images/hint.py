"""What ControlNets are shown of a picture, where that takes no model.

Edges, blurred, grey or shuffled pictures; some nets see the picture as it is. Depths are told by a
model that the operator names (`pipelines.hint_models`); what else takes a model is not made here.

Everything blocks and runs in worker processes, on pictures of the size to paint.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy import ndimage

from serve_app.types import ControlType

__all__ = ["make"]

Values = NDArray[np.float32]

# Source: Canny 1986, and the thresholds that ControlNets were trained with (annotator of
# lllyasviel/ControlNet, 2023), on 8-bit Sobel gradients in the L1 norm, as OpenCV has them.
_LOW, _HIGH = 100, 200
_SCRIBBLE_BLUR, _SCRIBBLE_WIDTH = 1.5, 3  # pixels, of a picture of 512
_BLUR = 8.0
_SHUFFLE_CELLS = 4  # waves of the shuffle along a side
_EDGE_PX = 512


def make(hint: ControlType | None, picture: Image.Image) -> Image.Image:
    """Make what a ControlNet of a type sees of a picture; both RGB and of one size."""
    maker = None if hint is None else _MAKERS.get(hint)
    return picture if maker is None else maker(picture)


def canny(picture: Image.Image) -> Image.Image:
    """Draw edges white on black, one pixel wide."""
    return _white_on_black(_edges(np.asarray(picture, np.float32)))


def scribble(picture: Image.Image) -> Image.Image:
    """Draw the coarse edges as thick strokes."""
    scale = max(picture.size) / _EDGE_PX
    values = np.asarray(picture, np.float32)
    sigma = _SCRIBBLE_BLUR * scale
    edges = _edges(ndimage.gaussian_filter(values, (sigma, sigma, 0)), _LOW / 2, _HIGH / 2)
    width = max(2, round(_SCRIBBLE_WIDTH * scale))
    return _white_on_black(ndimage.binary_dilation(edges, np.ones((width, width))))


def blur(picture: Image.Image) -> Image.Image:
    """Take the details away."""
    return picture.filter(ImageFilter.GaussianBlur(_BLUR * max(picture.size) / _EDGE_PX))


def gray(picture: Image.Image) -> Image.Image:
    """Take the colours away."""
    return picture.convert("L").convert("RGB")


def shuffle(picture: Image.Image) -> Image.Image:
    """Move everything by smooth random waves, always the same: colours stay, the content goes."""
    values = np.asarray(picture)
    height, width = values.shape[:2]
    random = np.random.default_rng(0)
    coarse = random.standard_normal((2, _SHUFFLE_CELLS, _SHUFFLE_CELLS))
    ys, xs = (_stretched(wave, (height, width)) for wave in coarse)
    places = np.stack([ys * (height - 1), xs * (width - 1)])
    moved = [
        ndimage.map_coordinates(values[..., channel], places, order=1, mode="nearest")
        for channel in range(3)
    ]
    return Image.fromarray(np.stack(moved, axis=-1))


def _stretched(wave: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Enlarge a few random numbers to smooth waves between 0 and 1."""
    smooth: NDArray[np.float64] = ndimage.zoom(wave, np.divide(size, wave.shape), order=3)
    return np.interp(smooth, (smooth.min(), smooth.max()), (0.0, 1.0))


def _edges(values: Values, low: float = _LOW, high: float = _HIGH) -> NDArray[np.bool_]:
    """Find the pixels whose gradient is greatest across the edge, and strong or joined to strong.

    values: (H, W, 3). Of the colours the one with the steepest gradient counts.
    """
    across, down = _gradients(values)
    strength = np.abs(across) + np.abs(down)
    is_thin = _is_ridge(strength, across, down)
    labels, _ = ndimage.label(is_thin & (strength > low), np.ones((3, 3)))
    strong = np.unique(labels[is_thin & (strength > high)])
    return np.isin(labels, strong[strong > 0])


def _gradients(values: Values) -> tuple[Values, Values]:
    """Differentiate across and down, each (H, W), in the colour that is steepest at a place."""
    across, down = (
        np.stack([ndimage.sobel(values[..., colour], axis, mode="nearest") for colour in range(3)])
        for axis in (1, 0)
    )
    steepest = (np.abs(across) + np.abs(down)).argmax(0)[None]
    return (
        np.take_along_axis(across, steepest, 0)[0],
        np.take_along_axis(down, steepest, 0)[0],
    )


def _is_ridge(strength: Values, across: Values, down: Values) -> NDArray[np.bool_]:
    """Compare each pixel with its two neighbours along the gradient, in steps of 45 degrees."""
    padded = np.pad(strength, 1)
    height, width = strength.shape

    def beside(y: int, x: int) -> Values:
        return padded[1 + y : 1 + y + height, 1 + x : 1 + x + width]

    slope = np.abs(down) / np.maximum(np.abs(across), 1e-6)
    is_flat, is_steep = slope < np.tan(np.pi / 8), slope > np.tan(3 * np.pi / 8)
    is_rising = across * down < 0
    pairs = ((0, -1), (-1, 0), (-1, 1), (-1, -1))
    ridges = [(strength > beside(y, x)) & (strength >= beside(-y, -x)) for y, x in pairs]
    return np.select([is_flat, is_steep, is_rising], ridges[:3], ridges[3])


def _white_on_black(edges: NDArray[np.bool_]) -> Image.Image:
    return Image.fromarray(edges).convert("RGB")


_MAKERS: Mapping[ControlType, Callable[[Image.Image], Image.Image]] = {
    ControlType.CANNY: canny,
    ControlType.SCRIBBLE: scribble,
    ControlType.BLUR: blur,
    ControlType.GRAY: gray,
    ControlType.SHUFFLE: shuffle,
}
