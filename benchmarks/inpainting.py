"""Benchmark and sheets of the mask options, with the demo checkpoints.

`python -m benchmarks.inpainting [--rounds 4] [--folder sheets]` prints what each `fill` leaves of
the object that is repainted and how much it shows of the one that is asked for, and draws what
soft masks, fills, outpainting and `only_masked` do, a file each.
"""

import argparse
import asyncio
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.sheet import Cell, save
from serve_app.config import EngineConfig, ImagesConfig
from serve_app.images.prepare import prepare
from serve_app.models import ModelEntry
from serve_app.pipelines.protocol import Painter
from serve_app.testing.painter import load_painter
from serve_app.types import Fill, GenerationSpec, Kind, Outpaint
from training.domain import COLOURS
from training.scene import Item, Scene, draw

Pixels = NDArray[np.uint8]

SIDE_PX = 256
MODELS = ("demo", "demo-inpaint")
STRENGTHS = (0.5, 0.7, 0.9)
_CIRCLE = Item("circle", "red", 0.5, 0.5, 0.22)
_BESIDE = (Item("square", "yellow", 0.17, 0.17, 0.12), Item("diamond", "white", 0.82, 0.84, 0.12))


def picture(*items: Item, background: str = "blue", side_px: int = SIDE_PX) -> Image.Image:
    """Draw a scene."""
    return Image.fromarray(draw(Scene(background, items, slope_y=-14.0), side_px))


def disc(radius: float, fade: float, side_px: int = SIDE_PX) -> Image.Image:
    """Draw a mask that is white up to a radius and fades over so many pixels beyond it."""
    away = np.hypot(*(np.indices((side_px, side_px)) - side_px / 2 + 0.5))
    shades = np.clip((radius + fade - away) / max(fade, 1e-6), 0, 1)
    return Image.fromarray((shades * 255).round().astype(np.uint8))


def spec_of(model_id: str, **changes: object) -> GenerationSpec:
    """Make a spec from what differs."""
    values: dict[str, object] = {
        "model_id": model_id,
        "kind": Kind.INPAINT,
        "prompt": "a big green triangle on a blue background",
        "height": SIDE_PX,
        "width": SIDE_PX,
        "steps": 20,
        "guidance_scale": 3.0,
        "scheduler": "DDIMScheduler",
        "seed": 1,
    }
    return GenerationSpec.model_validate(values | changes)


async def paint(
    painter: Painter, init: Image.Image, mask: Image.Image | None, specs: Sequence[GenerationSpec]
) -> list[Image.Image]:
    """Paint all specs side by side."""

    async def one(number: int, spec: GenerationSpec) -> Image.Image:
        data = None if mask is None else _file(mask)
        images = prepare(_file(init), data, spec, ImagesConfig())
        result = await painter.paint(number, spec, images)
        return Image.open(io.BytesIO(result.pictures[0].data)).convert("RGB")

    return await asyncio.gather(*(one(number, spec) for number, spec in enumerate(specs)))


def _file(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


async def measure_fills(painters: Mapping[str, Painter], rounds: int) -> None:
    """Print a row per model, strength and fill; means over the rounds.

    left: share of the old object that is still there: the least-squares factor of it in the
    result, 1 before. shown: share of the mask that has the colour that is asked for.
    """
    init, empty = picture(_CIRCLE, *_BESIDE), np.asarray(picture(*_BESIDE), np.float32)
    mask = disc(70, 0)
    inside = np.asarray(mask) == 255
    old = (np.asarray(init, np.float32) - empty)[inside]
    print("| model | strength | fill | left | shown |\n|---|---|---|---|---|")
    for model_id, painter in painters.items():
        for strength in STRENGTHS:
            for fill in Fill:
                specs = [
                    spec_of(model_id, strength=strength, fill=fill, seed=seed)
                    for seed in range(rounds)
                ]
                left: list[float] = []
                shown: list[float] = []
                for made in await paint(painter, init, mask, specs):
                    values = np.asarray(made, np.float32)
                    rest = (values - empty)[inside]
                    left.append(float((rest * old).sum() / (old * old).sum()))
                    green = np.abs(values - np.array(COLOURS["green"])).max(axis=2) < 40
                    shown.append(float(green[inside].mean()))
                print(
                    f"| {model_id} | {strength} | {fill.value} | {np.mean(left):.2f} | "
                    f"{np.mean(shown):.2f} |",
                    flush=True,
                )


async def soft_sheet(painters: Mapping[str, Painter]) -> list[Cell]:
    """One picture and prompt, by masks that fade over more and more."""
    init = picture(_CIRCLE, *_BESIDE)
    cells: list[Cell] = []
    prompt = "a big yellow circle on a green background"
    masks = {"hard": disc(80, 0), "fades over 40": disc(70, 40), "fades over 90": disc(40, 90)}
    masks["grey, 40 %"] = Image.new("L", (SIDE_PX, SIDE_PX), 102)
    for model_id, painter in painters.items():
        cells.append((init, model_id))
        for name, mask in masks.items():
            (made,) = await paint(painter, init, mask, [spec_of(model_id, prompt=prompt)])
            cells += [(mask.convert("RGB"), name), (made, "result")]
    return cells


async def fill_sheet(painters: Mapping[str, Painter]) -> list[Cell]:
    """What each fill leaves of a red circle at strength 0.7."""
    init = picture(_CIRCLE, *_BESIDE)
    cells: list[Cell] = []
    for model_id, painter in painters.items():
        cells.append((init, model_id))
        specs = [spec_of(model_id, strength=0.7, fill=fill) for fill in Fill]
        made = await paint(painter, init, disc(70, 0), specs)
        cells += [(one, fill.value) for one, fill in zip(made, Fill, strict=True)]
    return cells


async def outpaint_sheet(painters: Mapping[str, Painter]) -> list[Cell]:
    """Grow a picture to twice the width, and on all sides."""
    init = picture(Item("circle", "red", 0.5, 0.4, 0.2), *_BESIDE)
    cells: list[Cell] = []
    for model_id, painter in painters.items():
        cells.append((init, model_id))
        prompt = "two big yellow stars on a blue background"
        for name, sides, changes in (
            ("256 right", {"right": 256}, {}),
            ("256 right, noise", {"right": 256}, {"fill": "noise"}),
            ("512 right", {"right": 512}, {}),
            ("128 on all sides", dict.fromkeys(("left", "top", "right", "bottom"), 128), {}),
        ):
            bounds = {"overlap_px": 32, "multiple_px": 16, "max_side_px": 2048}
            bounds |= {"max_area_px": 2048**2} | sides
            plan = Outpaint.model_validate(bounds)
            spec = spec_of(
                model_id, prompt=prompt, outpaint=plan, **({"fill": "blur"} | dict(changes))
            )
            cells += [(made, name) for made in await paint(painter, init, None, [spec])]
    return cells


async def near_sheet(painters: Mapping[str, Painter]) -> list[Cell]:
    """Repaint a small object as part of the picture, and enlarged to the native size."""
    side_px = 512
    init = picture(
        Item("circle", "red", 0.5, 0.5, 0.07), *_BESIDE, background="blue", side_px=side_px
    )
    mask = disc(42, 0, side_px)
    part = (192, 192, 320, 320)
    cells: list[Cell] = []
    for model_id, painter in painters.items():
        cells += [(init, model_id), (init.crop(part), "its middle")]
        for is_near in (False, True):
            spec = spec_of(
                model_id,
                height=side_px,
                width=side_px,
                only_masked=is_near,
                padding_px=16,
            )
            (made,) = await paint(painter, init, mask, [spec])
            cells.append((made.crop(part), "only masked" if is_near else "as part"))
    return cells


async def run(painters: Mapping[str, Painter], rounds: int, folder: Path) -> None:
    """Draw the sheets, then measure."""
    save(folder / "soft.png", await soft_sheet(painters), 9)
    save(folder / "fill.png", await fill_sheet(painters), 6)
    save(folder / "outpaint.png", await outpaint_sheet(painters), 5)
    save(folder / "near.png", await near_sheet(painters), 4)
    if rounds:
        await measure_fills(painters, rounds)


def main() -> None:
    """Load both demo checkpoints and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--folder", type=Path, default=Path("sheets"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = EngineConfig(device="cpu", measure_rows=False)
    painters = {
        model_id: load_painter(
            ModelEntry(
                id=model_id,
                source=Path("checkpoints") / model_id,
                kinds=tuple(Kind),
                native_size_px=SIDE_PX,
                size_multiple_px=16,
            ),
            config,
        )
        for model_id in MODELS
    }
    try:
        asyncio.run(run(painters, arguments.rounds, arguments.folder))
    finally:
        for painter in painters.values():
            painter.close()


if __name__ == "__main__":
    main()
