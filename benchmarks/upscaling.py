"""What an upscaler of the published sizes costs: ESRGAN by 4, and its compact form of 32 layers.

The weights are set by hand. All layers compute, and the result is known: a square of 16 pixels for
each pixel, through residual blocks that add nothing, or, in the compact form, the picture that it
adds its own to. Run: `python -m benchmarks.upscaling --side 256`.
"""

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from serve_app.config import EngineConfig
from serve_app.models import AddOn
from serve_app.pipelines.addons.lookup import Named
from serve_app.pipelines.addons.super_resolution import read_network
from serve_app.pipelines.addons.upscalers import Upscaler
from training.scene import Item, Scene, draw

Tensors = dict[str, torch.Tensor]

_SCALE, _FEATURES, _GROWTH, _BLOCKS, _LAYERS = 4, 64, 32, 23, 32


def esrgan() -> Tensors:
    """Make the tensors of the published network by 4, in the names of Real-ESRGAN."""
    tensors = _layer("conv_first", _FEATURES, 3, passes=True)
    for block in range(_BLOCKS):
        for part in (1, 2, 3):
            for conv in range(1, 6):
                made = _FEATURES if conv == 5 else _GROWTH
                seen = _FEATURES + _GROWTH * (conv - 1)
                name = f"body.{block}.rdb{part}.conv{conv}"
                tensors |= _layer(name, made, seen, is_zero=conv == 5)
    tensors |= _layer("conv_body", _FEATURES, _FEATURES, is_zero=True)
    for name in ("conv_up1", "conv_up2", "conv_hr"):
        tensors |= _layer(name, _FEATURES, _FEATURES, passes=True)
    return tensors | _layer("conv_last", 3, _FEATURES, passes=True)


def compact() -> Tensors:
    """Make the tensors of the compact form by 4; its last layer adds nothing to the picture."""
    tensors = _layer("body.0", _FEATURES, 3) | {"body.1.weight": torch.full((_FEATURES,), 0.2)}
    for number in range(1, _LAYERS + 1):
        tensors |= _layer(f"body.{2 * number}", _FEATURES, _FEATURES)
        tensors[f"body.{2 * number + 1}.weight"] = torch.full((_FEATURES,), 0.2)
    made = 3 * _SCALE**2
    return tensors | _layer(f"body.{2 * _LAYERS + 2}", made, _FEATURES, is_zero=True)


def _layer(
    name: str, made: int, seen: int, *, passes: bool = False, is_zero: bool = False
) -> Tensors:
    """Draw a convolution of 3 x 3, or one that is 0, or that hands colours on as they are."""
    weight = torch.zeros(made, seen, 3, 3)
    if passes:
        for colour in range(3):
            weight[colour, colour, 1, 1] = 1.0
    elif not is_zero:
        weight = torch.randn(made, seen, 3, 3) * (0.3 / seen**0.5)
    return {f"{name}.weight": weight, f"{name}.bias": torch.zeros(made)}


def measure(
    tensors: Tensors, small: NDArray[np.uint8], config: EngineConfig
) -> tuple[NDArray[np.uint8], float, float]:
    """Enlarge a picture; returns it, the seconds, and those of the processor."""
    network = read_network(tensors).eval()
    named = Named(AddOn(id="sharp", type="upscaler", source=Path("none")), "key")
    tile_px, overlap_px = config.upscaler_tile_px, config.upscaler_overlap_px
    upscaler = Upscaler(named, network, torch.device("cpu"), tile_px, overlap_px)
    began, cpu_began = time.perf_counter(), time.process_time()
    made = upscaler.enlarge(small, _SCALE, Event())
    return made, time.perf_counter() - began, time.process_time() - cpu_began


def main() -> None:
    """Print the table and write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=256, help="pixels")
    parser.add_argument("--folder", type=Path, default=Path("out"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(3)
    options.folder.mkdir(parents=True, exist_ok=True)
    items = (Item("circle", "red", 0.4, 0.4, 0.2), Item("star", "yellow", 0.75, 0.7, 0.15))
    small = draw(Scene("blue", items), options.side)
    squares = small.repeat(_SCALE, 0).repeat(_SCALE, 1)
    forms: dict[str, Callable[[], Tensors]] = {"ESRGAN": esrgan, "compact": compact}
    print("| network | s | CPU s | CPU s per painted megapixel | off by at most | memory, GB |")
    print("|---|---|---|---|---|---|")
    for name, make in forms.items():
        made, wall_s, cpu_s = measure(make(), small, EngineConfig())
        off = int(np.abs(made.astype(int) - squares).max())
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        per_megapixel = cpu_s / (options.side**2 / 1e6)
        print(f"| {name} | {wall_s:.1f} | {cpu_s:.1f} | {per_megapixel:.0f} | {off} | {most:.2f} |")
        Image.fromarray(made).save(options.folder / f"upscaled-{name.lower()}.png")


if __name__ == "__main__":
    main()
