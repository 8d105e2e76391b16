"""Benchmark: what a LoRA adds to a request's latency, by where it is when the request comes.

A UNet of Stable Diffusion 1.5 in its full size, and kohya-like LoRAs for all its attention and
feed-forward layers. Measured are `Loras.choose`, which runs off the engine thread, and the change
of a forward's batch to other sets of LoRAs, which runs on it. Run:
`python -m benchmarks.lora_latency`.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from torch import nn

from serve_app.config import EngineConfig, LoggingConfig
from serve_app.models import AddOn
from serve_app.models.bases.base import BASES
from serve_app.pipelines.addons.lineage import Lineage
from serve_app.pipelines.addons.lookup import Named
from serve_app.pipelines.addons.lora_set import Adapter, LoraSet
from serve_app.pipelines.addons.loras import Loras
from serve_app.pipelines.addons.lru import Lru, Uses
from serve_app.pipelines.families import FAMILIES
from serve_app.telemetry import logging
from serve_app.types import LoraUse

COUNT = 16
TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")


def write_lora(file: Path, unet: nn.Module, rank: int, seed: int) -> int:
    """Write a LoRA in peft's names, as half precision; returns the file's bytes."""
    rng = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for name, layer in unet.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and name.endswith(TARGETS):
            shape, ones = layer.weight.shape, [1] * (layer.weight.ndim - 2)
            down = torch.randn(rank, *shape[1:], generator=rng) / rank
            up = torch.randn(shape[0], rank, *ones, generator=rng) / 100
            tensors[f"unet.{name}.lora_A.weight"] = down.half()
            tensors[f"unet.{name}.lora_B.weight"] = up.half()
    save_file(tensors, file)
    return file.stat().st_size


def seconds_of(loras: Loras, uses: list[tuple[str, float]], named: dict[str, Named]) -> float:
    """Time the choice of a set."""
    began = time.perf_counter()
    loras.choose([LoraUse(id=name, strength=strength) for name, strength in uses], named)
    return time.perf_counter() - began


def measure(unet: UNet2DConditionModel, folder: Path, rank: int) -> str:
    """Return a row of the table."""
    named, size = {}, 0
    for number in range(COUNT):
        file = folder / f"{rank}-{number}.safetensors"
        size = write_lora(file, unet, rank, number)
        named[str(number)] = Named(AddOn(id=str(number), type="lora", source=file), file.name)
    base = SimpleNamespace(unet=unet, lora_state_dict=StableDiffusionPipeline.lora_state_dict)
    kept: Lru[Adapter] = Lru(size * COUNT * 4, Uses())
    host: Lru[Adapter] = Lru(size * COUNT * 4, Uses())
    family = FAMILIES["StableDiffusion"]
    lineage = Lineage(frozenset({"Stable Diffusion 1"}))
    loras = Loras(base, family, lineage, kept, host, EngineConfig(lora_batch_bytes=1 << 40))
    disk = [seconds_of(loras, [(name, 1.0)], named) for name in named]
    for one in named.values():
        adapter = kept.take(one.key)
        assert adapter is not None, "it was just loaded"
        host.put(one.key, adapter, adapter.num_bytes)
    memory = [seconds_of(loras, [(name, 1.0)], named) for name in named]
    here = [seconds_of(loras, [(name, 0.5)], named) for name in named]
    changes = [change(loras, named, groups) for groups in (2, 8, 16)]
    cells = [f"{rank}", f"{size / 1e6:.0f} MB"]
    cells += [f"{1000 * statistics.median(times):.1f}" for times in (disk, memory, here)]
    cells += [f"{1000 * one:.1f}" for one in changes]
    return " | ".join(["", *cells, ""]).strip()


def change(loras: Loras, named: dict[str, Named], groups: int) -> float:
    """Time the change of a batch to other sets, two LoRAs each."""
    names, times = list(named), []
    for turn in range(5):
        sets: list[LoraSet] = []
        for group in range(groups):
            pair = [names[(group + turn) % COUNT], names[(group + turn + 5) % COUNT]]
            uses = [LoraUse(id=name, strength=0.7 + turn / 10) for name in pair]
            sets.append(loras.choose(uses, named))
        began = time.perf_counter()
        loras._denoiser.apply(sets)
        times.append(time.perf_counter() - began)
        loras._denoiser.apply(())
    return statistics.median(times)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rank", type=int, action="append")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.configure(LoggingConfig(level="WARNING"))
    print("Milliseconds, medians. A change is to other sets in all groups, two LoRAs each.\n")
    print("| rank | file | from disk | from CPU memory | there | 2 groups | 8 | 16 |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        config = dict(BASES["sd1"].parts["unet"])
        with torch.device("meta"):
            unet = UNet2DConditionModel.from_config(config)
        unet = unet.to_empty(device="cpu").eval()
        for rank in options.rank or (16, 64):
            print(measure(unet, Path(folder), rank), flush=True)


if __name__ == "__main__":
    main()
