"""Draws scenes: a softly shaded background and coloured objects with a shadow.

A ``Scene`` is plain data in fractions of the frame, so the same scene can be drawn at any size.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from training import shapes
from training.domain import BACKGROUNDS, BADGE, COLOURS, INK

__all__ = ["Item", "Picture", "Scene", "draw", "silhouette"]

Picture = npt.NDArray[np.uint8]
_INK = np.array(INK, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Item:
    """One object; positions and radius are fractions of the frame's side."""

    shape: str
    colour: str
    centre_y: float
    centre_x: float
    radius: float
    style: str = "flat"
    jitter: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Scene:
    """A background colour and the objects upon it, bottom first.

    ``slope_y`` and ``slope_x`` are the change of brightness across the frame, in grey levels.
    """

    background: str
    items: tuple[Item, ...] = field(default=())
    slope_y: float = -14.0
    slope_x: float = 0.0
    jitter: tuple[float, float, float] = (0.0, 0.0, 0.0)


def draw(scene: Scene, size_px: int) -> Picture:
    """Draws a scene: (size_px, size_px, 3), uint8."""
    ramp = (np.arange(size_px, dtype=np.float32) + 0.5) / size_px - 0.5
    colour = np.array(BACKGROUNDS[scene.background], dtype=np.float32)
    base = colour + np.array(scene.jitter, np.float32)
    shade = scene.slope_y * ramp[:, None] + scene.slope_x * ramp[None, :]
    canvas = (base + shade[:, :, None]).astype(np.float32)
    for item in scene.items:
        _cast_shadow(canvas, item)
        _paint(canvas, item)
    return np.asarray(np.clip(canvas + 0.5, 0, 255), np.uint8)


def silhouette(item: Item, size_px: int) -> npt.NDArray[np.bool_]:
    """Marks the pixels that the object covers by half at least: (size_px, size_px)."""
    cover = np.zeros((size_px, size_px, 3), np.float32)
    across, top, left = _frame(item, size_px)
    alpha = shapes.place(shapes.template(item.shape), across)
    _blend(cover, alpha, np.ones(3, np.float32), top, left)
    return np.asarray(cover[..., 0] >= 0.5)


def _frame(item: Item, side: int) -> tuple[int, int, int]:
    """Places the box around an object: its side, top and left, in pixels."""
    across = max(round(2 * item.radius * side), 2)
    top = round(item.centre_y * side - across / 2)
    return across, top, round(item.centre_x * side - across / 2)


def _blend(
    canvas: npt.NDArray[np.float32],
    alpha: npt.NDArray[np.float32],
    colour: npt.NDArray[np.float32],
    top: int,
    left: int,
) -> None:
    """Mixes ``colour`` (broadcast to (h, w, 3)) into the canvas where alpha says, in place."""
    height, width = canvas.shape[:2]
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + alpha.shape[0], height), min(left + alpha.shape[1], width)
    if y0 >= y1 or x0 >= x1:
        return
    rows, columns = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
    part = alpha[rows, columns, None]
    paint = np.broadcast_to(colour, (*alpha.shape, 3))[rows, columns]
    region = canvas[y0:y1, x0:x1]
    region += part * (paint - region)


def _cast_shadow(canvas: npt.NDArray[np.float32], item: Item) -> None:
    side = len(canvas)
    size_px = max(round(4 * item.radius * side), 4)
    top = round((item.centre_y + 0.07 * item.radius) * side - size_px / 2)
    left = round((item.centre_x + 0.03 * item.radius) * side - size_px / 2)
    alpha = 0.30 * shapes.place(shapes.shadow(item.shape), size_px)
    _blend(canvas, alpha, _INK, top, left)


def _paint(canvas: npt.NDArray[np.float32], item: Item) -> None:
    size_px, top, left = _frame(item, len(canvas))
    base = np.array(COLOURS[item.colour], dtype=np.float32) + np.array(item.jitter, np.float32)
    light = np.linspace(9, -11, size_px, dtype=np.float32)[:, None, None]
    _blend(canvas, shapes.place(shapes.template(item.shape), size_px), base + light, top, left)
    if item.shape == BADGE:
        _blend(canvas, shapes.place(shapes.badge_marks(), size_px), _INK, top, left)
    if item.style == "inked":
        margin = round(shapes.CONTOUR_MARGIN * size_px)
        line = shapes.place(shapes.contour(item.shape), size_px + 2 * margin)
        _blend(canvas, line, _INK, top - margin, left - margin)
