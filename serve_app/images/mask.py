"""What a client's mask says: how much of each pixel is to be repainted, and where that is a yes.

Masks come in two conventions. In this API and on most servers white is repainted and black kept.
In OpenAI's image edits the transparent part is repainted, and the rest is often the picture
itself. `to_shades` tells which one a picture follows; `to_binary` is the one place where shades
become yes or no. Where they mean how much, `to_soft` cleans them.
"""

from functools import reduce

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops
from scipy import ndimage

from serve_app.types import Masking, MaskMode

__all__ = [
    "alpha_to_shades",
    "finished",
    "grown",
    "has_greys",
    "resized",
    "to_binary",
    "to_shades",
    "to_soft",
]

_HALF = 128  # of 255; at and above it a pixel is repainted, and a translucent one can be seen
_NOISE = 32  # grey levels that compression may add to black, to white and to any one colour
# Of the pixels seen in a black and white mask; edges are grey, and some noise is tinted.
_MAX_GREY, _MAX_TINTED = 0.1, 0.01
_BAND_PX = 256
# Areas of grey are meant if they are so wide: antialiasing takes 1 to 3 pixels, a block of JPEG 8,
# and masks that were drawn at a quarter of the size and enlarged have edges of 8.
_AREA_PX = 13
_MIN_SOFT = 0.02  # of what is not black: less is a flaw of an edge, not a soft mask
# Shades that compression leaves of black and white; a schedule of 16 steps runs nothing for them.
_FAINT = 16


def finished(
    mask: Image.Image, sides: tuple[int, int], masking: Masking, *, is_alpha_mask: bool
) -> Image.Image:
    """Make of a decoded mask what is painted by, mode L, with greys only where they count.

    sides: width and height of the picture to paint, which `expand_px` counts in.
    is_alpha_mask: it is one as OpenAI's.
    """
    is_soft = masking.mode is MaskMode.SOFT
    shades = alpha_to_shades(mask, is_soft=is_soft) if is_alpha_mask else to_shades(mask)
    if masking.invert:
        shades = ImageChops.invert(shades)
    if _is_soft(mask, shades, sides, masking.mode):
        made = to_soft(shades, sides)
    else:
        made = to_binary(resized(shades, sides))
    return grown(made, masking.expand_px)


def to_shades(image: Image.Image) -> Image.Image:
    """Read a decoded mask; mode L, 255 = repaint, shades in between kept.

    Alpha is measured by its greatest value, so it does not matter how opaque a brush was.

    - No alpha, or nothing more than half transparent: luminance, the less the more transparent.
    - Black and white with some white, in what can be seen: luminance, and transparent is black.
      This is what an HTML canvas with white strokes exports, or a PNG whose black is transparent.
    - Else the colours say nothing (one colour all over, or a photograph): transparent is white.
    """
    if image.mode not in ("LA", "RGBA"):
        return image.convert("L")
    alpha = _full(image.getchannel("A"))
    has_hole = _extremes(alpha)[0] < _HALF
    if has_hole and not _is_black_and_white(image, alpha):
        return ImageChops.invert(alpha)
    return ImageChops.multiply(image.convert("L"), alpha)


def alpha_to_shades(image: Image.Image, *, is_soft: bool) -> Image.Image:
    """Read a decoded mask as OpenAI's image edits do: the transparent part is 255, repaint.

    One without a transparent part is read by `to_shades`: black and white.

    is_soft: a part that is half transparent at most counts too.
    """
    if image.mode in ("LA", "RGBA"):
        alpha = image.getchannel("A")
        if _extremes(alpha)[0] < (255 - _NOISE if is_soft else _HALF):
            return ImageChops.invert(alpha)
    return to_shades(image)


def to_binary(shades: Image.Image) -> Image.Image:
    """Split shades at half: 255 where a pixel is repainted, 0 where it is kept."""
    return shades.point([0] * _HALF + [255] * (256 - _HALF))


def to_soft(shades: Image.Image, sides: tuple[int, int]) -> Image.Image:
    """Bring shades to a size smoothly; nearly black becomes black, nearly white white.

    What is black at its own size stays so, whatever lies beside it.
    """
    nearest = np.asarray(resized(shades, sides))
    values = nearest
    if sides[0] > shades.width or sides[1] > shades.height:
        values = np.asarray(shades.resize(sides, Image.Resampling.BILINEAR))
    values = np.where(values >= 256 - _FAINT, np.uint8(255), values)
    return Image.fromarray(np.where(np.minimum(values, nearest) < _FAINT, np.uint8(0), values))


def has_greys(shades: Image.Image) -> bool:
    """Return whether greys are meant: areas of them, not edges or traces of compression.

    Grey is what is neither nearly black nor nearly white. Areas are what squares of `_AREA_PX` fit
    into (an opening), and have to be `_MIN_SOFT` of all that is not nearly black.
    """
    values = np.asarray(shades)
    is_grey = (values > _NOISE) & (values < 255 - _NOISE)
    if not is_grey.any():
        return False
    inner = ndimage.minimum_filter(is_grey.view(np.uint8), _AREA_PX, mode="nearest")
    areas = ndimage.maximum_filter(inner, _AREA_PX, mode="nearest")
    return bool(areas.sum() >= _MIN_SOFT * np.count_nonzero(values > _NOISE) and areas.any())


def grown(mask: Image.Image, expand_px: int) -> Image.Image:
    """Grow what is repainted by so many pixels, diagonally too, or shrink it below 0.

    The edge of the frame is none of the mask: what touches it shrinks on its other sides only.
    """
    if expand_px == 0:
        return mask
    extreme = ndimage.maximum_filter if expand_px > 0 else ndimage.minimum_filter
    values = extreme(np.asarray(mask), 2 * abs(expand_px) + 1, mode="nearest")
    return Image.fromarray(values)


def resized(shades: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Bring shades to another width and height, the lightest of all that a pixel covers winning.

    Whatever was to be repainted still is: averages would lose a line of 2 in 2048 pixels.
    """
    values = np.asarray(shades)
    for axis, length in enumerate(reversed(size)):
        values = _lightest(values, length, axis)
    return Image.fromarray(values)


def _lightest(values: NDArray[np.uint8], length: int, axis: int) -> NDArray[np.uint8]:
    old, place = values.shape[axis], np.arange(length)
    found: NDArray[np.uint8]
    if length >= old:  # what lies at the centres
        found = values.take((2 * place + 1) * old // (2 * length), axis)
    else:
        first, end = place * old // length, -(-(place + 1) * old // length)
        # Pairs of bounds, as reduceat wants them; what lies between two pairs is left out.
        bounds = np.stack([first, end], 1).ravel()[:-1]
        found = np.maximum.reduceat(values, bounds, axis).take(2 * place, axis)
    return found


def _is_soft(
    mask: Image.Image, shades: Image.Image, sides: tuple[int, int], mode: MaskMode
) -> bool:
    """Judge at the mask's own size, or at that of the picture where it is smaller."""
    if mode is not MaskMode.AUTO:
        return mode is MaskMode.SOFT
    smaller = (min(shades.width, sides[0]), min(shades.height, sides[1]))
    return not _is_coloured(mask) and has_greys(resized(shades, smaller))


def _is_coloured(image: Image.Image) -> bool:
    """Return whether shades come from colours, which no soft mask has: it is a picture.

    A documented body names one picture as init and as mask; what is light in it is repainted.
    """
    if image.mode not in ("RGB", "RGBA"):
        return False
    if image.mode == "RGBA" and _extremes(_full(image.getchannel("A")))[0] < _HALF:
        return False  # its alpha is the mask, or it is black and white
    seen, _, _, tinted = _counts(image.convert("RGBA"), Image.new("L", image.size, 255))
    return bool(tinted > _MAX_TINTED * seen)


def _full(alpha: Image.Image) -> Image.Image:
    """Measure alpha by its greatest value."""
    most = max(1, _extremes(alpha)[1])
    return alpha.point([min(255, round(level * 255 / most)) for level in range(256)])


def _is_black_and_white(image: Image.Image, alpha: Image.Image) -> bool:
    """Return whether what can be seen of a picture is a mask of white parts.

    A picture of one colour, the invisible pixels included, is none: an eraser made its hole, where
    a canvas that was never painted on is black.
    """
    ranges = [_extremes(colour) for colour in image.split()[:-1]]
    if all(most - least <= _NOISE for least, most in ranges):
        return False
    seen, white, black, tinted = _counts(image, alpha)
    is_grey = seen - white - black > _MAX_GREY * seen
    return bool(white > 0 and not is_grey and tinted <= _MAX_TINTED * seen)


def _counts(image: Image.Image, alpha: Image.Image) -> NDArray[np.int64]:
    """Count as `_tones` does, by bands, which take less memory."""
    counts = np.zeros(4, np.int64)
    for top in range(0, image.height, _BAND_PX):
        band = (0, top, image.width, min(top + _BAND_PX, image.height))
        counts += _tones(image.crop(band), to_binary(alpha.crop(band)))
    return counts


def _extremes(band: Image.Image) -> tuple[int, int]:
    values = np.asarray(band)
    return int(values.min()), int(values.max())


def _tones(image: Image.Image, seen: Image.Image) -> tuple[int, int, int, int]:
    """Count the pixels that are seen, and of these the nearly white, nearly black and tinted."""
    *colours, _ = image.split()
    least, most = reduce(ImageChops.darker, colours), reduce(ImageChops.lighter, colours)
    lights, darks = least.histogram(seen), most.histogram(seen)
    tints = ImageChops.subtract(most, least).histogram(seen)
    white, black, tinted = lights[255 - _NOISE :], darks[: _NOISE + 1], tints[_NOISE + 1 :]
    return sum(lights), sum(white), sum(black), sum(tinted)
