"""A picture that grows: the canvas around it, and the mask of what is new.

The picture itself is copied pixel for pixel. Of it only a strip of `overlap_px` along the new part
is repainted too, less and less with the distance, so that what is painted can join on.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from serve_app import errors
from serve_app.types import Outpaint

__all__ = ["grow", "prepared_size"]

Room = tuple[int, int, int, int]  # pixels on the left, above, on the right, below


def prepared_size(plan: Outpaint, picture: tuple[int, int]) -> tuple[int, int]:
    """Return width and height that a picture of these is brought to before it grows.

    Raises:
        errors.InvalidImage: it would be too large already.
    """
    sides = _prepared(plan, picture)
    if sides != picture:  # what is not resized takes no memory, and is judged when it has grown
        _check(plan, *sides)
    return sides


def _prepared(plan: Outpaint, picture: tuple[int, int]) -> tuple[int, int]:
    width, height = plan.width or picture[0], plan.height or picture[1]
    if plan.anchor is not None:
        shrink = min(1.0, width / picture[0], height / picture[1])
        return max(1, round(picture[0] * shrink)), max(1, round(picture[1] * shrink))
    if plan.width is None and plan.height is not None:
        width = max(1, round(picture[0] * height / picture[1]))
    elif plan.height is None and plan.width is not None:
        height = max(1, round(picture[1] * width / picture[0]))
    return width, height


def grow(
    picture: Image.Image, mask: Image.Image | None, plan: Outpaint, *, is_hard: bool = False
) -> tuple[Image.Image, Image.Image]:
    """Make the larger picture, whose new part carries on the old one's border, and its mask.

    Args:
        picture: of the prepared size, RGB.
        mask: of the same size, mode L; it is repainted too.
        plan: how far it grows.
        is_hard: the mask has no shades.

    Raises:
        errors.InvalidImage: nothing is added, or too much.
    """
    room = _room(plan, picture.size)
    left, top, right, bottom = room
    width, height = left + picture.width + right, top + picture.height + bottom
    if not any(room):
        message = "Nothing is added to the init_image: it fills the width and height asked for."
        raise errors.InvalidImage(_field(plan), message)
    _check(plan, width, height)
    pads = ((top, bottom), (left, right))
    canvas = np.pad(np.asarray(picture), (*pads, (0, 0)), mode="edge")
    strip = _strip(picture.size, room, plan.overlap_px, is_hard=is_hard)
    shades = Image.fromarray(np.pad(strip, pads, constant_values=255))
    if mask is not None:
        whole = np.pad(np.asarray(mask), pads)
        shades = ImageChops.lighter(shades, Image.fromarray(whole))
    return Image.fromarray(canvas), shades


def _check(plan: Outpaint, width: int, height: int) -> None:
    if max(width, height) > plan.max_side_px or width * height > plan.max_area_px:
        message = (
            f"The picture would have {width} x {height} pixels; at most {plan.max_side_px} a side "
            f"and {plan.max_area_px} in all are painted."
        )
        raise errors.InvalidImage(_field(plan), message)


def _field(plan: Outpaint) -> str:
    return "outpaint" if plan.anchor is None else "width"


def _room(plan: Outpaint, picture: tuple[int, int]) -> Room:
    """Return how much is added on each side, so that both sides become multiples."""
    if plan.anchor is None:
        asked = ((plan.left, plan.right), (plan.top, plan.bottom))
    else:
        sides = (plan.width or picture[0], plan.height or picture[1])
        free = [max(0, side - own) for side, own in zip(sides, picture, strict=True)]
        first = [round(space * share) for space, share in zip(free, plan.anchor, strict=True)]
        asked = ((first[0], free[0] - first[0]), (first[1], free[1] - first[1]))
    (left, right), (top, bottom) = (
        _rounded(*pair, own, plan.multiple_px) for pair, own in zip(asked, picture, strict=True)
    )
    return left, top, right, bottom


def _rounded(before: int, after: int, own: int, multiple: int) -> tuple[int, int]:
    """Add what a multiple lacks on the side that grows, behind the picture if both or none do."""
    more = -(before + own + after) % multiple
    return (before + more, after) if before and not after else (before, after + more)


def _strip(
    size: tuple[int, int], room: Room, overlap_px: int, *, is_hard: bool
) -> NDArray[np.uint8]:
    """Shade the old picture, (H, W): white beside what is new, black `overlap_px` away from it."""
    width, height = size
    left, top, right, bottom = room
    across, down = np.arange(width), np.arange(height)[:, None]
    away = np.full((height, width), overlap_px + 1)
    for is_new, steps in (
        (left, across + 1),
        (right, width - across),
        (top, down + 1),
        (bottom, height - down),
    ):
        if is_new:
            away = np.minimum(away, steps)
    if is_hard:
        return np.where(away <= overlap_px, np.uint8(255), np.uint8(0))
    shades = 255 * (1 - away / (overlap_px + 1))
    return np.rint(shades).astype(np.uint8)
