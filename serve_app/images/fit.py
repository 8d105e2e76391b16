"""The size of a picture that is painted over, where nobody asked for one: its own shape."""

import math
from collections.abc import Callable

from serve_app.types import Fit

__all__ = ["fitted"]


def fitted(fit: Fit, picture: tuple[int, int]) -> tuple[int, int]:
    """Find the width and height to paint for an init picture of these width and height, pixels.

    They have its shape, as near as multiples allow. A side that was asked for gives way where the
    other would be beyond its limit; the shape only where the shorter side would be too short.
    """
    scale = min(
        _asked_scale(fit, *picture),
        fit.max_px / max(picture),
        math.sqrt(fit.max_area_px / math.prod(picture)),
    )

    def sides(rounded: Callable[[float], int]) -> tuple[int, int]:
        width, height = (
            min(
                max(rounded(side * scale / fit.multiple_px) * fit.multiple_px, fit.min_px),
                fit.max_px,
            )
            for side in picture
        )
        return width, height

    nearest = sides(round)
    return nearest if math.prod(nearest) <= fit.max_area_px else sides(math.floor)


def _asked_scale(fit: Fit, width: int, height: int) -> float:
    if fit.width is not None:
        return fit.width / width
    if fit.height is not None:
        return fit.height / height
    return math.sqrt(fit.area_px / (width * height))
