"""Benchmark: requests with LoRAs of their own, through the engine and one after another.

The requests are those of `benchmarks.engine`, each with one of 8 LoRAs, or two of 12. Half of the
LoRAs act on the attention and the text encoder, half on the convolutions too. In turns, in one run:
the stock pipeline with `set_adapters` before each request; the engine; the engine where requests
share forwards only with those of the same LoRAs; the engine without any LoRA. With `--compile` the
LoRAs act on no convolutions, and there is an engine with `engine.compile: default` too, which has
compiled what it meets before it is measured.
Run: `python -m benchmarks.addons --help`.
"""

import argparse
import contextlib
import copy
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from benchmarks.engine import (
    CONFIG,
    MODELS,
    Clocks,
    Model,
    canvas_of,
    load,
    seconds,
    specs_of,
    unaided,
)
from serve_app.config import EngineConfig, LoggingConfig
from serve_app.engine.engine import Engine
from serve_app.engine.request import Progress, Request
from serve_app.models import AddOn
from serve_app.pipelines.addons.lookup import Named
from serve_app.pipelines.addons.lora_set import NO_LORAS
from serve_app.pipelines.addons.variants import Variant
from serve_app.pipelines.checkpoint import Checkpoint
from serve_app.pipelines.specs import run_strength
from serve_app.pipelines.work import Painting, Sample
from serve_app.telemetry import logging
from serve_app.types import GenerationSpec, Kind, LoraUse

RANK = 8
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "q_proj", "v_proj")
CONVOLUTIONS = ("conv1", "conv2")
MIXES = {"one of 8 LoRAs": (8, 1), "two of 12 LoRAs": (12, 2)}
WAYS = {
    "stock": "stock, s",
    "engine": "engine",
    "engine by LoRA": "by LoRA",
    "engine without": "without LoRAs",
    "compiled": "compiled",
}
COMPILED = CONFIG.model_copy(update={"compile": "default"})
NAMES = ("overhead-bound", "demo checkpoint, half size", "compute-bound")


@dataclass(frozen=True, slots=True)
class Bench:
    """A loaded model, the LoRAs in a folder, and the stock components that they are attached to."""

    checkpoint: Checkpoint
    named: Mapping[str, Named]
    stock: Mapping[str, object]


def write_lora(file: Path, checkpoint: Checkpoint, seed: int, *, convolves: bool) -> None:
    """Write a LoRA of random matrices in peft's names."""
    rng = torch.Generator().manual_seed(seed)
    wanted = ATTENTION + CONVOLUTIONS * convolves
    tensors: dict[str, torch.Tensor] = {}
    for part in ("unet", "text_encoder"):
        for name, layer in getattr(checkpoint.base, part).named_modules():
            if isinstance(layer, nn.Linear | nn.Conv2d) and name.endswith(wanted):
                shape, ones = layer.weight.shape, [1] * (layer.weight.ndim - 2)
                down = torch.randn(RANK, *shape[1:], generator=rng) / RANK
                up = torch.randn(shape[0], RANK, *ones, generator=rng) / RANK / 4
                tensors |= {f"{part}.{name}.lora_A.weight": down}
                tensors |= {f"{part}.{name}.lora_B.weight": up}
    save_file(tensors, file)


def prepare(checkpoint: Checkpoint, folder: Path, count: int, *, convolves: bool) -> Bench:
    """Write the LoRAs, and attach them to a copy of the model as diffusers does.

    convolves: every other one acts on convolutions.
    """
    components = {name: copy.deepcopy(part) for name, part in checkpoint.base.components.items()}
    pipeline = checkpoint.family.pipelines[Kind.TEXT2IMG](**components)
    named: dict[str, Named] = {}
    for number in range(count):
        name = f"lora{number}"
        file = folder / f"{name}.safetensors"
        write_lora(file, checkpoint, number, convolves=convolves and number % 2 == 1)
        named[name] = Named(AddOn(id=name, type="lora", source=file), name)
        pipeline.load_lora_weights(str(file), adapter_name=name)
    return Bench(checkpoint, named, pipeline.components)


def with_add_ons(
    specs: Sequence[GenerationSpec], count: int, each: int, rng: random.Random
) -> list[GenerationSpec]:
    """Give each request LoRAs with strengths of its own; all are used as evenly as may be."""
    names = [f"lora{number}" for number in range(count)]
    chosen: list[GenerationSpec] = []
    for number, spec in enumerate(specs):
        own = [names[(number * each + index) % count] for index in range(each)]
        uses = tuple(LoraUse(id=name, strength=rng.choice((0.5, 0.8, 1.0))) for name in own)
        chosen.append(spec.model_copy(update={"loras": uses}))
    return chosen


def stock(bench: Bench, specs: Sequence[GenerationSpec]) -> None:
    """Paint one after another with diffusers, whose adapters are set before each request."""
    for spec in specs:
        canvas = canvas_of(spec)
        parts = dict(bench.stock) | {"scheduler": bench.checkpoint.schedulers.make(spec)}
        pipeline = bench.checkpoint.family.pipelines[spec.kind](
            **parts, requires_safety_checker=False
        )
        pipeline.set_progress_bar_config(disable=True)
        uses = spec.loras
        pipeline.set_adapters([use.id for use in uses], [use.strength for use in uses])
        pictures: dict[str, object] = {"height": spec.height, "width": spec.width}
        if canvas is not None:
            pictures = {"image": canvas.init, "strength": run_strength(spec)}
        if canvas is not None and canvas.mask is not None:
            pictures |= {"mask_image": canvas.mask, "height": spec.height, "width": spec.width}
        with unaided():
            pipeline(
                prompt=spec.prompt,
                num_inference_steps=spec.steps,
                guidance_scale=spec.guidance_scale,
                generator=torch.Generator().manual_seed(spec.seed),
                output_type="pt",
                **pictures,
            )


def weave(
    bench: Bench,
    engine: Engine,
    specs: Sequence[GenerationSpec],
    *,
    apart: bool = False,
    measures: bool = False,
) -> None:
    """Run all requests through the engine. apart: no forward for two sets of LoRAs."""
    checkpoint, futures = bench.checkpoint, []
    for spec in specs:
        loras = checkpoint.loras.choose(spec.loras, bench.named) if spec.loras else NO_LORAS
        body = Sample(
            checkpoint=checkpoint,
            spec=spec,
            canvas=canvas_of(spec),
            size=(spec.height, spec.width),
            scheduler=checkpoint.schedulers.make(spec),
            variant=Variant(),
            progress=Progress(),
            loras=loras,
        )
        key = (body.size, loras.number if apart else None)
        request = Request(body, key=key, variant=body.variant, measures=measures)
        futures.append(engine.submit(request))
    assert all(isinstance(future.result(), Painting) for future in futures)


@contextlib.contextmanager
def running(
    bench: Bench, config: EngineConfig, specs: Sequence[GenerationSpec]
) -> Iterator[Engine]:
    """Start an engine that has measured its row caps, and compiled what it meets if it compiles."""
    compiled = bench.checkpoint.compiled
    with contextlib.closing(Engine(config, bench.checkpoint.variants.activate)) as engine:
        first = specs[0].model_copy(update={"steps": 2, "loras": ()})
        weave(bench, engine, [first], measures=True)
        compiled.start()
        weave(bench, engine, specs)
        while compiled.is_busy:
            time.sleep(0.5)
        yield engine
        compiled.stop()


def compare(name: str, model: Model, mix: str, rounds: int, *, compiles: bool) -> str:
    """Measure the ways in turns and return a row of the table."""
    checkpoint, plain = load(model), specs_of(model)
    count, each = MIXES[mix]
    specs = with_add_ons(plain, count, each, random.Random(4))
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bench = prepare(checkpoint, folder, count, convolves=not compiles)
        engine = stack.enter_context(running(bench, CONFIG, specs))
        runs: dict[str, Callable[[], None]] = {
            "stock": partial(stock, bench, specs),
            "engine": partial(weave, bench, engine, specs),
            "engine by LoRA": partial(weave, bench, engine, specs, apart=True),
            "engine without": partial(weave, bench, engine, plain),
        }
        engines = dict.fromkeys(runs, engine)
        if compiles:
            twin = Bench(load(model, COMPILED), bench.named, bench.stock)
            engines["compiled"] = stack.enter_context(running(twin, COMPILED, specs))
            runs["compiled"] = partial(weave, twin, engines["compiled"], specs)
        ways = list(runs)
        for run in runs.values():
            run()  # loads the adapters, makes the prototypes of the schedulers
        times: dict[str, list[Clocks]] = {way: [] for way in ways}
        rows = dict.fromkeys(ways, 0.0)
        for number in range(rounds):
            for way in (ways[number % len(ways) :] + ways)[: len(ways)]:
                before = engines[way].snapshot()
                times[way].append(seconds(runs[way]))
                after = engines[way].snapshot()
                forwards = after.forwards - before.forwards
                rows[way] = (after.rows - before.rows) / forwards if forwards else 0.0
    median = statistics.median(wall for wall, _ in times["stock"])
    cells = [name, mix, str(len(specs)), f"{median:.2f}"]
    for way in ways[1:]:
        cells.append(f"{_ratio(times['stock'], times[way], 0):.2f} ({rows[way]:.1f})")
    cells += [f"{_ratio(times['engine without'], times['engine'], clock):.2f}" for clock in (0, 1)]
    return " | ".join(["", *cells, ""]).strip()


def _ratio(one: Sequence[Clocks], other: Sequence[Clocks], clock: int) -> float:
    pairs = zip(one, other, strict=True)
    return statistics.median(mine[clock] / its[clock] for mine, its in pairs)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", choices=list(MODELS), action="append")
    parser.add_argument("--compile", action="store_true", help="compiling takes minutes a model")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.configure(LoggingConfig(level="WARNING"))
    print("Times stock, with rows per forward in parentheses; the last columns: share of the speed")
    print("without LoRAs that is left, by the clock of the wall and of the processor.\n")
    ways = [words for way, words in WAYS.items() if way != "compiled" or options.compile]
    print(" | ".join(["| model", "mix", "n", *ways, "share: wall", "CPU |"]))
    print("|---" * (len(ways) + 5) + "|")
    for name in options.model or NAMES:
        for mix in MIXES:
            row = compare(name, MODELS[name], mix, options.rounds, compiles=options.compile)
            print(row, flush=True)


if __name__ == "__main__":
    main()
