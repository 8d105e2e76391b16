"""Benchmark: ways to run one forward whose rows have LoRAs of their own.

18 rows with 8 different LoRAs of rank 8, on the attention and the convolutions of a UNet. In turns:
the plain forward without any; batched products, one batch entry a group of rows
(`pipelines.addons.lora_layers`); peft's mixed batch, which takes the rows of each adapter out and
puts their results back, layer by layer; one forward per adapter, as an engine must that switches.
Run: `python -m benchmarks.lora_rows`.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial

import torch
from peft import LoraConfig
from peft.functional import inject_adapter_in_model, set_adapter
from peft.tuners.lora import LoraLayer
from torch import nn

from benchmarks.engine import MODELS, load
from serve_app.config import LoggingConfig
from serve_app.pipelines.addons.lora_file import Pair
from serve_app.pipelines.addons.lora_layers import LoraLayers
from serve_app.pipelines.addons.lora_set import Adapter, LoraSet
from serve_app.telemetry import logging

ROWS, COUNT, RANK = 18, 8, 8
TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2")
NAMES = ("overhead-bound", "demo checkpoint, half size", "compute-bound")


def pairs_of(unet: nn.Module, seed: int) -> dict[str, Pair]:
    """Draw the matrices of one LoRA."""
    rng = torch.Generator().manual_seed(seed)
    pairs = {}
    for name, layer in unet.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and name.endswith(TARGETS):
            shape, ones = layer.weight.shape, [1] * (layer.weight.ndim - 2)
            down = torch.randn(RANK, *shape[1:], generator=rng) / RANK
            pairs[name] = Pair(down, torch.randn(shape[0], RANK, *ones, generator=rng) / RANK / 4)
    return pairs


def with_peft(unet: nn.Module, loras: Mapping[str, Mapping[str, Pair]]) -> nn.Module:
    """Copy the UNet and let peft put the adapters into it."""
    wrapped = copy.deepcopy(unet)
    for name, pairs in loras.items():
        config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=list(pairs))
        inject_adapter_in_model(config, wrapped, name)
        for layer, pair in pairs.items():
            module = wrapped.get_submodule(layer)
            assert isinstance(module, LoraLayer), "peft wraps the layers that it is told"
            module.lora_A[name].weight.data = pair.down
            module.lora_B[name].weight.data = pair.up
    return wrapped.eval().requires_grad_(False)


def compare(name: str, rounds: int) -> str:
    """Measure the ways in turns and return a row of the table."""
    model = MODELS[name]
    unet = load(model).base.unet
    loras = {f"lora{number}": pairs_of(unet, number) for number in range(COUNT)}
    owners = [f"lora{row // 2 % COUNT}" for row in range(ROWS)]  # two rows each: with guidance
    cells = model.sides_px[0] // 8
    rng = torch.Generator().manual_seed(0)
    width = unet.config.cross_attention_dim
    sample = torch.randn(ROWS, unet.config.in_channels, cells, cells, generator=rng)
    texts = torch.randn(ROWS, 77, width, generator=rng)
    times = torch.full((ROWS,), 500.0)

    layers, sets = LoraLayers("unet", unet), {}
    for number, (lora, pairs) in enumerate(loras.items()):
        adapter = Adapter(lora, lora, {"unet": layers.packed(pairs)})
        sets[lora] = LoraSet(number + 1, ((adapter, 1.0),))
    wrapped = with_peft(unet, loras)

    def predict(module: nn.Module, rows: slice | torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = module(sample[rows], times[rows], texts[rows])[0]
        return made

    def plain() -> torch.Tensor:
        layers.apply(())
        return predict(unet, slice(None))

    def products() -> torch.Tensor:
        layers.apply([sets[owner] for owner in owners[::2]])
        return predict(unet, slice(None))

    def mixed() -> torch.Tensor:
        own = [layer for layer in wrapped.modules() if isinstance(layer, LoraLayer)]
        for layer in own:
            layer.__dict__["forward"] = partial(type(layer).forward, layer, adapter_names=owners)
        made = predict(wrapped, slice(None))
        for layer in own:
            del layer.__dict__["forward"]
        return made

    def apart() -> torch.Tensor:
        made = torch.empty_like(sample)
        for lora in loras:
            set_adapter(wrapped, [lora])
            rows = torch.tensor([owner == lora for owner in owners])
            made[rows] = predict(wrapped, rows)
        return made

    ways = {"plain": plain, "products": products, "mixed": mixed, "apart": apart}
    with torch.inference_mode():
        truth = apart()
        worst = [float((way() - truth).abs().max()) for way in (products, mixed)]
        spent = measure(ways, rounds)
    base = spent["plain"]
    shares = [
        f"{statistics.median(one / it for one, it in zip(spent[way], base, strict=True)):.2f}"
        for way in ("products", "mixed", "apart")
    ]
    return " | ".join(
        [
            "",
            name,
            f"{1000 * statistics.median(base):.1f} ms",
            *shares,
            *map("{:.0e}".format, worst),
            "",
        ]
    ).strip()


def measure(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Time all ways in turns."""
    spent: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, run in ways.items():
            began = time.perf_counter()
            run()
            spent[way].append(time.perf_counter() - began)
    return spent


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.configure(LoggingConfig(level="WARNING"))
    print(
        "Shares of the plain forward, and the largest differences from one forward per adapter.\n"
    )
    print("| model | plain | batched products | peft, mixed | apart | products off by | mixed |")
    print("|---|---|---|---|---|---|---|")
    for name in NAMES:
        print(compare(name, options.rounds if name != "compute-bound" else 3), flush=True)


if __name__ == "__main__":
    main()
