"""Benchmark: ways to run one forward whose rows have LoRAs of their own.

18 rows with 8 different LoRAs of rank 8, on the attention and the convolutions of a UNet. In turns:
the plain forward without any; the engine's (`pipelines.addons.lora_layers`), which gives layers
weights of each group's own where that pays; batched products in all layers, one batch entry a group
of rows; peft's mixed batch, which takes the rows of each adapter out and puts their results back,
layer by layer; one forward per adapter, as an engine must that switches.

With `--layers`, single layers of many sizes: products, weights of each group's own, and what it
takes to make these. Run: `python -m benchmarks.lora_rows`.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from peft import LoraConfig
from peft.functional import inject_adapter_in_model, set_adapter
from peft.tuners.lora import LoraLayer
from torch import nn

from benchmarks.engine import MODELS, load
from serve_app.config import EngineConfig, LoggingConfig
from serve_app.pipelines.addons.lora_file import Pair
from serve_app.pipelines.addons.lora_layers import LoraLayers
from serve_app.pipelines.addons.lora_merging import Merging, SiblingLayers
from serve_app.pipelines.addons.lora_products import GroupedPair, Layer, adding
from serve_app.pipelines.addons.lora_set import Adapter, LoraSet
from serve_app.telemetry import logging

ROWS, COUNT, RANK = 18, 8, 8
ROOM = EngineConfig().lora_batch_bytes
TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2")
GROUPS = 9  # of single layers, two rows each
LINEARS = (  # inputs, outputs, tokens of a row
    (16, 16, 4),
    (16, 128, 4),
    (32, 32, 1024),
    (64, 512, 256),
    (96, 96, 16),
    (96, 96, 64),
    (384, 96, 16),
    (128, 128, 64),
    (128, 128, 1024),
    (256, 256, 256),
    (384, 384, 64),
    (320, 320, 1024),
    (640, 640, 256),
    (1280, 1280, 64),
)
KERNELS = (  # of three by three: channels in and out, side of a row
    (16, 16, 2),
    (16, 16, 4),
    (16, 16, 8),
    (32, 32, 32),
    (48, 48, 8),
    (144, 48, 8),
    (48, 96, 8),
    (96, 96, 4),
    (96, 96, 8),
    (64, 64, 16),
    (128, 128, 8),
    (128, 128, 32),
    (256, 256, 16),
    (384, 384, 8),
)
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

    layers = {room: LoraLayers("unet", unet, merge_bytes=room) for room in (0, ROOM)}
    sets = {}
    for number, (lora, pairs) in enumerate(loras.items()):
        adapter = Adapter(lora, lora, {"unet": layers[0].packed(pairs)})
        sets[lora] = LoraSet(number + 1, ((adapter, 1.0),))
    wrapped = with_peft(unet, loras)

    def predict(module: nn.Module, rows: slice | torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = module(sample[rows], times[rows], texts[rows])[0]
        return made

    def plain() -> torch.Tensor:
        return predict(unet, slice(None))

    def added(room: int) -> torch.Tensor:
        layers[room].apply([sets[owner] for owner in owners[::2]])
        made = predict(unet, slice(None))
        layers[room].apply(())
        return made

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

    ways: dict[str, Callable[[], torch.Tensor]] = {
        "plain": plain,
        "engine": partial(added, ROOM),
        "products": partial(added, 0),
        "mixed": mixed,
        "apart": apart,
    }
    with torch.inference_mode():
        truth = apart()
        worst = [
            float((ways[way]() - truth).abs().max()) for way in ("engine", "products", "mixed")
        ]
        spent = measure(ways, rounds)
    base = spent["plain"]
    shares = [
        f"{statistics.median(one / it for one, it in zip(spent[way], base, strict=True)):.2f}"
        for way in list(ways)[1:]
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
            began = time.process_time()
            run()
            spent[way].append(time.process_time() - began)
    return spent


def layers_of() -> Iterator[tuple[Layer, torch.Tensor, int]]:
    """Yield layers with inputs, and the pixels of a row."""
    for inputs, outputs, tokens in LINEARS:
        yield nn.Linear(inputs, outputs), torch.randn(2 * GROUPS, tokens, inputs), tokens
    for inputs, outputs, side in KERNELS:
        conv, x = (
            nn.Conv2d(inputs, outputs, 3, padding=1),
            torch.randn(2 * GROUPS, inputs, side, side),
        )
        conv.weight.data = conv.weight.data.contiguous(memory_format=torch.channels_last)
        yield conv, x.contiguous(memory_format=torch.channels_last), side * side


class Always(SiblingLayers):
    """Layers that are merged whether it pays or not."""

    def pays(self, _x: torch.Tensor, _share: float) -> bool:
        """Say so."""
        return True


def compare_layer(layer: Layer, x: torch.Tensor, pixels: int, rounds: int) -> str:
    """Measure one layer and return a row of the table."""
    inputs, outputs = layer.weight[0].numel(), len(layer.weight)
    rng = torch.Generator().manual_seed(0)
    down = torch.randn(GROUPS, RANK, inputs, generator=rng) / RANK
    up = torch.randn(GROUPS, RANK, outputs, generator=rng) / RANK
    pair, given = GroupedPair(down, up, total=GROUPS), Always([layer])
    is_chosen = SiblingLayers([layer]).pays(x, share=1)

    def merge() -> Callable[[torch.Tensor], torch.Tensor]:
        (made,) = Merging(
            given, lambda _: [pair], slice(0, GROUPS), GROUPS, has_room=True
        ).forwards()
        return made

    merged, products = merge(), adding(layer, pair)
    ways: dict[str, Callable[[], object]] = {
        "plain": lambda: layer(x),
        "products": lambda: products(x),
        "merged": lambda: merged(x),
        "made anew": lambda: merge()(x),
    }
    off = float((merged(x) - products(x)).abs().max())
    repeats = max(2, int(1e8 / (2 * GROUPS * pixels * inputs * outputs + 1e5)))
    spent = measure({way: partial(repeat, run, repeats) for way, run in ways.items()}, rounds)
    least = {way: min(times) / repeats for way, times in spent.items()}
    shares = [least["products"], least["merged"], least["made anew"] - least["merged"]]
    cells = [type(layer).__name__, f"{inputs}", f"{outputs}", f"{pixels}"]
    cells += [f"{1e6 * least['plain']:.0f}", *(f"{one / least['plain']:.2f}" for one in shares)]
    return " | ".join(["", *cells, "merged" if is_chosen else "products", f"{off:.0e}", ""]).strip()


def repeat(run: Callable[[], object], times: int) -> None:
    """Run several times, as one measurement."""
    for _ in range(times):
        run()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--layers", action="store_true", help="single layers of many sizes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.configure(LoggingConfig(level="WARNING"))
    if options.layers:
        print("| layer | inputs | outputs | pixels | plain, us | products | merged | to make | "
              "chosen | apart |\n" + "|---" * 10 + "|")  # fmt: skip
        with torch.inference_mode():
            for layer, x, pixels in layers_of():
                print(compare_layer(layer, x, pixels, options.rounds), flush=True)
        return
    print(
        "Shares of the plain forward, and the largest differences from one forward per adapter.\n"
    )
    print("| model | plain | engine | products | peft, mixed | apart | off by | | |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in NAMES:
        print(compare(name, options.rounds if name != "compute-bound" else 3), flush=True)


if __name__ == "__main__":
    main()
