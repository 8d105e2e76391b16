"""Contact sheets: rows of small pictures with a line of text under each."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from training.scene import Picture

__all__ = ["save_sheet"]

_LABEL_PX = 16
_GAP_PX = 4


def save_sheet(
    path: Path, cells: Sequence[tuple[Picture, str]], num_columns: int, side_px: int = 160
) -> None:
    """Writes the pictures as a PNG, in reading order."""
    num_rows = -(-len(cells) // num_columns)
    step_x, step_y = side_px + _GAP_PX, side_px + _LABEL_PX + _GAP_PX
    sheet = Image.new("RGB", (num_columns * step_x, num_rows * step_y), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for index, (picture, label) in enumerate(cells):
        x, y = index % num_columns * step_x, index // num_columns * step_y
        small = Image.fromarray(picture).resize((side_px, side_px), Image.Resampling.LANCZOS)
        sheet.paste(small, (x, y))
        pen.text((x + 1, y + side_px + 1), label, "black", font)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)
