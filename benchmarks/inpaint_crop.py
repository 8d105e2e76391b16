"""Benchmark 3: inpainting 10 % of a 1024 x 1024 picture, on a crop against the stock full frame.

Both sides get the same encoded pictures and give an encoded PNG. Counts the pixels that change
where the mask is black. Run: `python -m benchmarks.inpaint_crop [--rounds 5]`.
"""

import argparse
import asyncio
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionInpaintPipeline, UniPCMultistepScheduler
from PIL import Image

from serve_app.config import EngineConfig
from serve_app.models import ModelEntry
from serve_app.pipelines.compose import encode
from serve_app.pipelines.protocol import Painter
from serve_app.testing.checkpoints import RandomUNet, write_random_inpaint
from serve_app.testing.painter import load_painter
from serve_app.types import GenerationSpec, Kind, PreparedImages

SIDE_PX = 1024
MASK_PX = 324  # 10 % of the area
STEPS = 10
# Attention from the second level on; Stable Diffusion's own has it from the first.
UNET = RandomUNet(channels=(32, 64, 64, 64), attention=(False, True, True, False))


def inputs() -> PreparedImages:
    """Make a photo-like picture and a mask off its middle."""
    small = np.random.default_rng(2).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    init = Image.fromarray(small).resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)
    mask = Image.new("L", (SIDE_PX, SIDE_PX), 0)
    mask.paste(255, (300, 380, 300 + MASK_PX, 380 + MASK_PX))
    return PreparedImages(encode(np.asarray(init)), encode(np.asarray(mask)))


def decode(data: bytes) -> Image.Image:
    """Open a PNG."""
    return Image.open(io.BytesIO(data))


def stock_call(folder: Path, images: PreparedImages, spec: GenerationSpec) -> Callable[[], bytes]:
    """Run the stock pipeline on the full frame."""
    pipeline = StableDiffusionInpaintPipeline.from_pretrained(folder, safety_checker=None)
    pipeline.scheduler = UniPCMultistepScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    assert images.init is not None, "made above"
    assert images.mask is not None, "made above"
    init, mask = images.init, images.mask

    def call() -> bytes:
        result = pipeline(
            prompt=spec.prompt,
            image=decode(init.data).convert("RGB"),
            mask_image=decode(mask.data),
            height=SIDE_PX,
            width=SIDE_PX,
            num_inference_steps=spec.steps,
            guidance_scale=spec.guidance_scale,
            generator=torch.Generator().manual_seed(spec.seed),
        )
        return encode(np.asarray(result.images[0])).data

    return call


def changed_outside(data: bytes, images: PreparedImages) -> int:
    """Count the pixels that differ from the init picture where the mask is black."""
    assert images.init is not None, "made above"
    assert images.mask is not None, "made above"
    result, init = (np.asarray(decode(one).convert("RGB")) for one in (data, images.init.data))
    return int((result != init).any(axis=-1)[np.asarray(decode(images.mask.data)) == 0].sum())


async def measure(painter: Painter, stock: Callable[[], bytes], rounds: int) -> None:
    """Alternate both sides and print the medians."""
    images = inputs()
    spec = make_spec()
    times: dict[str, list[tuple[float, float]]] = {"stock": [], "crop": []}
    outside: dict[str, int] = {}
    for _ in range(rounds + 1):
        for way, taken in times.items():
            wall, cpu = time.perf_counter(), time.process_time()
            if way == "stock":
                data = stock()
            else:
                data = (await painter.paint(1, spec, images)).pictures[0].data
            taken.append((time.perf_counter() - wall, time.process_time() - cpu))
            outside[way] = changed_outside(data, images)
    pairs = list(zip(times["stock"], times["crop"], strict=True))[1:]  # the first warms up
    for clock, name in enumerate(("wall", "CPU")):
        seconds = [statistics.median(pair[way][clock] for pair in pairs) for way in (0, 1)]
        ratio = statistics.median(stock[clock] / crop[clock] for stock, crop in pairs)
        print(f"{name}: stock {seconds[0]:.2f} s, crop {seconds[1]:.2f} s, ratio {ratio:.2f}")
    print(f"pixels changed outside the mask: stock {outside['stock']}, crop {outside['crop']}")


def make_spec() -> GenerationSpec:
    """Make the request."""
    return GenerationSpec(
        model_id="random",
        kind=Kind.INPAINT,
        prompt="a red cat",
        height=SIDE_PX,
        width=SIDE_PX,
        steps=STEPS,
        scheduler="UniPCMultistepScheduler",
        seed=1,
    )


def main() -> None:
    """Measure with a random checkpoint of native size 512."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_random_inpaint(folder, unet=UNET)
        entry = ModelEntry(id="random", source=folder, kinds=(Kind.INPAINT,))
        painter = load_painter(entry, EngineConfig(device="cpu"))
        asyncio.run(measure(painter, stock_call(folder, inputs(), make_spec()), rounds))
        painter.close()


if __name__ == "__main__":
    main()
