"""The size of a picture that is painted over, where nobody asked for one: its own shape."""

import math

from serve_app.types import Fit

__all__ = ["fitted"]

_AREA_WEIGHT = 0.1  # a tenth more or fewer pixels are worth a hundredth of stretching


def fitted(fit: Fit, picture: tuple[int, int]) -> tuple[int, int]:
    """Find the width and height to paint for an init picture of these width and height, pixels.

    They have its shape, as near as multiples allow. A side that was asked for gives way where the
    other would be beyond its limit; the shape only where the shorter side would be too short.
    """
    width, height = picture
    asked = _asked_scale(fit, width, height)
    most = min(fit.max_px / max(picture), math.sqrt(fit.max_area_px / (width * height)))
    area = width * height * min(asked, most) ** 2

    def cost(size: tuple[int, int]) -> float:
        stretch = abs(math.log(size[0] * height / (size[1] * width)))
        return stretch + _AREA_WEIGHT * abs(math.log(math.prod(size) / area))

    sizes = [size for size in _sizes(fit, width / height) if math.prod(size) <= fit.max_area_px]
    if asked <= most:
        sizes = [size for size in sizes if fit.width in (None, size[0])] or sizes
        sizes = [size for size in sizes if fit.height in (None, size[1])] or sizes
    return min(sizes, key=cost)


def _asked_scale(fit: Fit, width: int, height: int) -> float:
    if fit.width is not None:
        return fit.width / width
    if fit.height is not None:
        return fit.height / height
    return math.sqrt(fit.area_px / (width * height))


def _sizes(fit: Fit, shape: float) -> list[tuple[int, int]]:
    """List widths and heights of about a shape (width / height): for every side the best other."""

    def near(length: float) -> int:
        multiple = round(length / fit.multiple_px) * fit.multiple_px
        return min(max(multiple, fit.min_px), fit.max_px)

    sides = range(fit.min_px, fit.max_px + 1, fit.multiple_px)
    return [(side, near(side / shape)) for side in sides] + [
        (near(side * shape), side) for side in sides
    ]
