"""Draws the example that the demo repaints: a small scene and the mask of one object in it.

Run as ``python -m training.example``; needs no trained weights.
"""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw

from training.scene import Item, Scene, draw

__all__ = ["PROMPT", "main"]

PROMPT = "a green triangle on a blue background"
_SIDE_PX = 512
_SCENE = Scene(
    "blue",
    (
        Item("circle", "white", 0.36, 0.50, 0.165),
        Item("triangle", "red", 0.80, 0.17, 0.125),
        Item("diamond", "pink", 0.79, 0.50, 0.125),
        Item("square", "orange", 0.80, 0.83, 0.125),
    ),
    slope_y=-16,
)
_MASK_BOX = (152, 80, 359, 303)


def main() -> None:
    """Writes ``init.png`` and ``mask.png``; white in the mask is repainted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("examples/inpaint"))
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw(_SCENE, _SIDE_PX)).save(folder / "init.png", optimize=True)
    mask = Image.new("L", (_SIDE_PX, _SIDE_PX))
    ImageDraw.Draw(mask).rectangle(_MASK_BOX, 255)
    mask.save(folder / "mask.png", optimize=True)


if __name__ == "__main__":
    main()
