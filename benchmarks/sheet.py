"""Sheets of pictures to look at, with a line of text under each."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

__all__ = ["Cell", "save"]

Cell = tuple[Image.Image, str]
_GAP_PX, _LABEL_PX = 6, 18


def save(file: Path, cells: Sequence[Cell], columns: int, height_px: int = 192) -> None:
    """Write pictures of one height, with a line of text under each, in reading order."""
    small = [
        (image.resize((round(image.width * height_px / image.height), height_px)), label)
        for image, label in cells
    ]
    rows = [small[start : start + columns] for start in range(0, len(small), columns)]
    width = max(sum(image.width + _GAP_PX for image, _ in row) for row in rows)
    step = height_px + _LABEL_PX + _GAP_PX
    sheet = Image.new("RGB", (width, step * len(rows)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for number, row in enumerate(rows):
        left = 0
        for image, label in row:
            sheet.paste(image, (left, number * step))
            pen.text((left + 1, number * step + height_px + 2), label, "black", font)
            left += image.width + _GAP_PX
    file.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(file, optimize=True)
