"""What is shown in place of a flagged picture (API page, `safety_checker_type`).

Blurred and pixelated pictures keep a few average colours and nothing else: how many depends on
the size, so that neither a small nor a large picture gives its content away.
"""

import dataclasses
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from serve_app.images.codec import encode
from serve_app.types import Pictures, SafetyAction

__all__ = ["replace", "replace_flagged"]

_MAX_CELLS = 10  # colours along the longer side
_MIN_CELL_PX = 32  # of a small picture even fewer remain
_TEXT_LAYOUTS = ("Sensitive content", "Sensitive\ncontent")
_TEXT_SHARE = 0.8  # of width and height, at most
_BACKGROUND = (48, 48, 48)
_FOREGROUND = (224, 224, 224)
_PROBE_PX = 100  # font size at which a layout is measured


def replace(image: Image.Image, action: SafetyAction) -> Image.Image:
    """Make the replacement of a picture.

    Args:
        image: RGB, the flagged picture.
        action: which replacement.

    Returns:
        RGB, of the same size.
    """
    match action:
        case SafetyAction.BLUR:
            return _averages(image).resize(image.size, Image.Resampling.BICUBIC)
        case SafetyAction.PIXELATE:
            return _averages(image).resize(image.size, Image.Resampling.NEAREST)
        case SafetyAction.TEXT:
            return _notice(image.size)
        case SafetyAction.BLACK:
            return Image.new("RGB", image.size, "black")


def replace_flagged(
    pictures: Pictures, images: Sequence[Image.Image], flags: Sequence[bool], action: SafetyAction
) -> Pictures:
    """Replace the flagged pictures of a job and note the flags.

    Args:
        pictures: as painted.
        images: the same pictures, decoded.
        flags: per picture, whether it is unsafe.
        action: what a flagged picture is replaced by.
    """
    shown = tuple(
        encode(replace(image, action)) if flag else picture
        for picture, image, flag in zip(pictures.pictures, images, flags, strict=True)
    )
    return dataclasses.replace(pictures, pictures=shown, nsfw=tuple(flags))


def _averages(image: Image.Image) -> Image.Image:
    """Average the colours of a coarse grid of cells."""
    longer = max(image.size)
    cells = min(_MAX_CELLS, max(1, longer // _MIN_CELL_PX))
    grid = [max(1, round(side * cells / longer)) for side in image.size]
    return image.resize((grid[0], grid[1]), Image.Resampling.BOX)


def _notice(size: tuple[int, int]) -> Image.Image:
    """Write the notice as large as it fits, on one line or two."""
    notice = Image.new("RGB", size, _BACKGROUND)
    pen = ImageDraw.Draw(notice)
    layout, font_px = max(
        ((text, _fitting_px(pen, text, size)) for text in _TEXT_LAYOUTS), key=lambda fit: fit[1]
    )
    pen.multiline_text(
        (size[0] / 2, size[1] / 2),
        layout,
        fill=_FOREGROUND,
        font=ImageFont.load_default(font_px),
        anchor="mm",
        align="center",
    )
    return notice


def _fitting_px(pen: ImageDraw.ImageDraw, text: str, size: tuple[int, int]) -> float:
    """Font size, in pixels, at which a text takes its share of the picture."""
    font = ImageFont.load_default(_PROBE_PX)
    left, top, right, bottom = pen.multiline_textbbox((0, 0), text, font=font)
    scale = min(size[0] / (right - left), size[1] / (bottom - top))
    return max(1.0, _PROBE_PX * _TEXT_SHARE * scale)
