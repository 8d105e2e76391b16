"""A contact sheet: init picture, mask and result side by side, labelled."""

import io
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

__all__ = ["write"]

_GAP_PX = 16
_LABEL_PX = 28


def write(path: Path, init: Path, mask: Path, result: bytes) -> None:
    """Write the sheet as a PNG; all three are shown at the result's size."""
    painted = Image.open(io.BytesIO(result)).convert("RGB")
    panels = [
        ("init_image", Image.open(init).convert("RGB").resize(painted.size)),
        ("mask_image", Image.open(mask).convert("RGB").resize(painted.size)),
        ("result", painted),
    ]
    width, height = painted.size
    size = (_GAP_PX + len(panels) * (width + _GAP_PX), height + 2 * _GAP_PX + _LABEL_PX)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_LABEL_PX * 0.7)
    for index, (label, panel) in enumerate(panels):
        left = _GAP_PX + index * (width + _GAP_PX)
        draw.text((left, _GAP_PX // 2), label, fill="black", font=font)
        sheet.paste(panel, (left, _GAP_PX + _LABEL_PX))
    sheet.save(path)
