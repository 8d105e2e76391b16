"""Large alpha templates of every shape, and how to resize them into a picture.

Templates are drawn once at 512 px with PIL and shrunk by box filtering, so edges are smooth at
any size. Callers: ``scene`` (drawing) and ``scorer`` (comparison).
"""

import math
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter
from scipy.ndimage import distance_transform_edt

__all__ = [
    "CONTOUR_MARGIN",
    "CONTOUR_REACH",
    "TEMPLATE_PX",
    "badge_marks",
    "contour",
    "place",
    "shadow",
    "template",
]

TEMPLATE_PX = 512
CONTOUR_MARGIN = 0.125
_LINE_PX = (14, 30)
CONTOUR_REACH = 1 + _LINE_PX[1] / (TEMPLATE_PX / 2)
_Point = tuple[float, float]


def _polygon(points: list[_Point]) -> Image.Image:
    image = Image.new("L", (TEMPLATE_PX, TEMPLATE_PX))
    half = TEMPLATE_PX / 2
    ImageDraw.Draw(image).polygon([(half + half * x, half + half * y) for x, y in points], 255)
    return image


def _ellipse(image: Image.Image, radius: float, fill: int) -> Image.Image:
    half = TEMPLATE_PX / 2
    box = (half - half * radius, half - half * radius, half + half * radius, half + half * radius)
    ImageDraw.Draw(image).ellipse(box, fill)
    return image


def _star() -> Image.Image:
    points = []
    for k in range(10):
        radius = 1.0 if k % 2 == 0 else 0.43
        angle = -math.pi / 2 + k * math.pi / 5
        points.append((radius * math.cos(angle), 0.06 + radius * math.sin(angle)))
    return _polygon(points)


def _heart() -> Image.Image:
    points = []
    for angle in np.linspace(0, 2 * math.pi, 200):
        x = 16 * math.sin(angle) ** 3
        y = 13 * math.cos(angle) - 5 * math.cos(2 * angle) - 2 * math.cos(3 * angle)
        points.append((x / 17, -(y - math.cos(4 * angle) + 2.5) / 16))
    return _polygon(points)


def _cross() -> Image.Image:
    arm, end = 0.34, 0.95
    quarter = [(arm, -end), (arm, -arm), (end, -arm)]
    points = []
    for _ in range(4):
        points += quarter
        quarter = [(-y, x) for x, y in quarter]
    return _polygon(points)


@cache
def template(shape: str) -> Image.Image:
    """Draws the alpha mask of a shape: 'L', 512 x 512, the shape filling the unit box."""
    blank = Image.new("L", (TEMPLATE_PX, TEMPLATE_PX))
    if shape == "circle":
        return _ellipse(blank, 0.96, 255)
    if shape == "ring":
        return _ellipse(_ellipse(blank, 0.97, 255), 0.55, 0)
    if shape == "square":
        return _polygon([(-0.84, -0.84), (0.84, -0.84), (0.84, 0.84), (-0.84, 0.84)])
    if shape == "diamond":
        return _polygon([(0, -1), (0.78, 0), (0, 1), (-0.78, 0)])
    if shape in ("triangle", "warning"):
        return _polygon([(0, -0.9), (0.98, 0.8), (-0.98, 0.8)])
    makers = {"star": _star, "heart": _heart, "cross": _cross}
    return makers[shape]()


@cache
def shadow(shape: str) -> Image.Image:
    """Blurs the template inside a box twice as large: the soft shadow under an object."""
    size = TEMPLATE_PX // 4
    wide = Image.new("L", (2 * size, 2 * size))
    wide.paste(template(shape).resize((size, size)), (size // 2, size // 2))
    return wide.filter(ImageFilter.GaussianBlur(size * 0.07))


@cache
def contour(shape: str) -> Image.Image:
    """Draws a thick line along the edge of the shape, for the inked style.

    Two thirds of it lie outside, so that narrow parts keep their colour; it reaches
    ``CONTOUR_REACH`` times as far as the shape. The box is larger than that of the template by
    ``CONTOUR_MARGIN`` of its side all around.
    """
    margin = round(TEMPLATE_PX * CONTOUR_MARGIN)
    wide = Image.new("L", (TEMPLATE_PX + 2 * margin,) * 2)
    wide.paste(template(shape), (margin, margin))
    solid = np.asarray(wide) > 127
    inside, outside = distance_transform_edt(solid), distance_transform_edt(~solid)
    is_line = (inside <= _LINE_PX[0]) & (outside <= _LINE_PX[1])
    return Image.fromarray(np.where(is_line, 255, 0).astype(np.uint8))


@cache
def badge_marks() -> Image.Image:
    """Draws what makes a warning sign: a thick border and an exclamation mark, as alpha."""
    border = Image.fromarray(
        np.asarray(template("warning"))
        - np.asarray(_polygon([(0, -0.55), (0.7, 0.63), (-0.7, 0.63)]))
    )
    pen = ImageDraw.Draw(border)
    pen.polygon([(224, 205), (288, 205), (272, 345), (240, 345)], 255)
    pen.ellipse((234, 362, 278, 406), 255)
    return border


def place(alpha: Image.Image, size_px: int) -> npt.NDArray[np.float32]:
    """Shrinks a template to a square of ``size_px``: float32 in 0..1."""
    small = alpha.resize((size_px, size_px), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / 255.0
