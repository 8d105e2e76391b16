"""Benchmark 1: the engine against the stock pipeline, one after another and in static batches.

Mixed requests differ in sampler (10 of them), steps, kind, guidance, prompt and seed, and are of
one size or of two. Static batching joins requests that agree in sampler, steps, guidance, kind and
size, which is all that a batched pipeline call can do. Stock pipelines have diffusers' samplers; a
further way is one after another with those that are served. The ways alternate, with the order
turned each round. The engine has its default settings and measures its row caps first, as in
service; with `--compile` there is an engine with `engine.compile: default` too, which has compiled
what it met before the first round. Run: `python -m benchmarks.engine --help`.
"""

import argparse
import contextlib
import copy
import inspect
import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers import SchedulerMixin
from diffusers.models import attention_processor
from PIL import Image

from serve_app.config import EngineConfig, LoggingConfig
from serve_app.engine.engine import Engine
from serve_app.engine.request import Progress, Request
from serve_app.models import ModelEntry
from serve_app.pipelines.addons.variants import Variant
from serve_app.pipelines.checkpoint import Checkpoint
from serve_app.pipelines.compose import Canvas
from serve_app.pipelines.loader import load_checkpoint
from serve_app.pipelines.specs import run_strength
from serve_app.pipelines.work import Painting, Sample
from serve_app.telemetry import logging
from serve_app.testing.checkpoints import RandomUNet, write_random_text2img
from serve_app.types import GenerationSpec, Kind

SCHEDULERS = (
    "UniPCMultistepScheduler",
    "DDIMScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "HeunDiscreteScheduler",
    "DEISMultistepScheduler",
    "PNDMScheduler",
    "DDPMScheduler",
)

CONFIG = EngineConfig(device="cpu")


@dataclass(frozen=True, slots=True)
class Model:
    """Weights, the picture sides that are asked for, and how much is asked.

    source: a shape for random weights, what writes a checkpoint, or a folder of one.
    requests: mixed unless `equal`.
    """

    source: RandomUNet | Path | Callable[[Path], None]
    sides_px: tuple[int, ...]
    steps: tuple[int, int]
    requests: int = 16
    equal: bool = False


# Little arithmetic per call, as on a GPU that waits for its launches.
_TINY = RandomUNet(4, (8, 16), (False, True), sample_size=4)
_LARGE = RandomUNet(4, (128, 256, 384), (False, True, True), sample_size=32)
_DEMO = Path(__file__).parents[1] / "checkpoints" / "demo"
MODELS = {
    "overhead-bound": Model(_TINY, (32,), (10, 50)),
    "overhead-bound, two sizes": Model(_TINY, (32, 40), (10, 50)),
    "overhead-bound, equal requests": Model(_TINY, (32,), (10, 50), equal=True),
    "demo checkpoint, half size": Model(_DEMO, (128,), (5, 25)),
    "demo checkpoint": Model(_DEMO, (256,), (5, 25)),
    "compute-bound": Model(_LARGE, (256,), (2, 4), requests=6),
}


_COLUMNS = {
    "static": "static",
    "samplers": "our samplers",
    "compiled": "compiled",
    "weave": "weave",
}
Clocks = tuple[float, float]  # seconds: of the wall, and of the process at work
MakeScheduler = Callable[[GenerationSpec], SchedulerMixin]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What ways to run the same requests took.

    times: by way, a round each. rows: mean of the engine's forwards. row_steps: of one round.
    caps: rows, by lane and size.
    """

    requests: int
    times: Mapping[str, Sequence[Clocks]]
    rows: float
    row_steps: int
    caps: Mapping[str, int]

    def seconds(self, way: str) -> float:
        """Median of the wall clock, of all requests together."""
        return statistics.median(wall for wall, _ in self.times[way])

    def ratio(self, way: str, clock: int = 0) -> float:
        """How many times faster than one after another; the median of the rounds."""
        pairs = zip(self.times["sequential"], self.times[way], strict=True)
        return statistics.median(one[clock] / it[clock] for one, it in pairs)


def specs_of(model: Model) -> list[GenerationSpec]:
    """Draw the requests; equal ones still differ in prompt and seed."""
    rng = random.Random(4)
    samplers = itertools.cycle(SCHEDULERS)
    drawn = [
        GenerationSpec(
            model_id="benchmark",
            kind=rng.choice(list(Kind)),
            prompt=f"picture {number}",
            height=(side := model.sides_px[number % len(model.sides_px)]),
            width=side,
            steps=rng.randint(*model.steps),
            guidance_scale=rng.choice([4.0, 7.5, 9.0]),
            strength=rng.choice([0.6, 0.8, 1.0]),
            scheduler=next(samplers),
            seed=number,
        )
        for number in range(model.requests)
    ]
    if not model.equal:
        return drawn
    same = {"kind": Kind.TEXT2IMG, "height": model.sides_px[0], "width": model.sides_px[0]}
    same |= {"guidance_scale": 7.5, "scheduler": SCHEDULERS[0], "steps": max(model.steps) // 2}
    return [spec.model_copy(update=same) for spec in drawn]


def canvas_of(spec: GenerationSpec) -> Canvas | None:
    """Make an input picture, masked in its middle for an inpainting."""
    if spec.kind is Kind.TEXT2IMG:
        return None
    side = spec.height
    init = np.random.default_rng(1).integers(0, 256, (side, side, 3), dtype=np.uint8)
    mask = Image.new("L", (side, side), 0)
    mask.paste(255, (side // 4, side // 4, side * 3 // 4, side * 3 // 4))
    is_inpaint = spec.kind is Kind.INPAINT
    return Canvas(Image.fromarray(init), mask if is_inpaint else None, (0, 0, side, side))


def one_by_one(
    checkpoint: Checkpoint, specs: list[GenerationSpec], make: MakeScheduler | None = None
) -> list[torch.Tensor]:
    """Run the stock pipeline on one request after another; pictures as `stock` gives them."""
    return [stock(checkpoint, [spec], make)[0] for spec in specs]


def in_groups(
    checkpoint: Checkpoint, specs: list[GenerationSpec], make: MakeScheduler | None = None
) -> None:
    """Run the stock pipeline on what a static batch can hold."""
    for group in grouped(specs):
        stock(checkpoint, group, make)


def weave(
    checkpoint: Checkpoint, engine: Engine, specs: Iterable[GenerationSpec], measures: bool = False
) -> list[Painting]:
    """Run all requests through the engine; those that measure find the row cap of their size."""
    futures = []
    for spec in specs:
        body = Sample(
            checkpoint=checkpoint,
            spec=spec,
            canvas=canvas_of(spec),
            size=(spec.height, spec.width),
            scheduler=checkpoint.schedulers.make(spec),
            variant=Variant(),
            progress=Progress(),
        )
        request = Request(body, key=body.size, variant=body.variant, measures=measures)
        futures.append(engine.submit(request))
    paintings = [future.result() for future in futures]
    assert all(isinstance(painting, Painting) for painting in paintings)
    return [painting for painting in paintings if isinstance(painting, Painting)]


def stock(
    checkpoint: Checkpoint, specs: list[GenerationSpec], make: MakeScheduler | None = None
) -> torch.Tensor:
    """Run requests that agree in all but prompt and seed in one call of the stock pipeline.

    make: of the scheduler; none: that which is served. Gives (B, 3, H, W) in [0, 1].
    """
    spec, canvas = specs[0], canvas_of(specs[0])
    parts = checkpoint.base.components | {
        "scheduler": (make or checkpoint.schedulers.make)(spec),
    }
    pipeline = checkpoint.family.pipelines[spec.kind](**parts, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    pictures: dict[str, object] = {"height": spec.height, "width": spec.width}
    if canvas is not None:
        pictures = {"image": canvas.init, "strength": run_strength(spec)}
    if canvas is not None and canvas.mask is not None:
        pictures |= {"mask_image": canvas.mask, "height": spec.height, "width": spec.width}
    with unaided():
        images: torch.Tensor = pipeline(
            prompt=[one.prompt for one in specs],
            num_inference_steps=spec.steps,
            guidance_scale=spec.guidance_scale,
            generator=[torch.Generator().manual_seed(one.seed) for one in specs],
            output_type="pt",
            **pictures,
        ).images
    return images


def of_diffusers(checkpoint: Checkpoint) -> MakeScheduler:
    """Return what makes diffusers' own schedulers, as its documentation says, for a checkpoint.

    PNDM without the first steps of Runge-Kutta, as Stable Diffusion ships it.
    """
    config = dict(checkpoint.base.scheduler.config) | {"clip_sample": False}

    @cache
    def prototype(name: str) -> SchedulerMixin:
        own = {"skip_prk_steps": True} if name == "PNDMScheduler" else {}
        return getattr(diffusers, name).from_config(config | own)

    return lambda spec: copy.deepcopy(prototype(spec.scheduler))


@contextlib.contextmanager
def unaided() -> Iterator[None]:
    """Let diffusers' attention run as it is for a while, without the service's memory."""
    aided, attention_processor.inspect = attention_processor.inspect, inspect
    try:
        yield
    finally:
        attention_processor.inspect = aided


def grouped(specs: list[GenerationSpec]) -> list[list[GenerationSpec]]:
    """Group the requests that a static batch can hold."""
    groups: dict[GenerationSpec, list[GenerationSpec]] = {}
    for spec in specs:
        groups.setdefault(spec.model_copy(update={"prompt": "", "seed": 0}), []).append(spec)
    return list(groups.values())


def seconds(work: Callable[[], object]) -> Clocks:
    """Time some work: wall clock and CPU time of the process, with what a GPU has to finish."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


def load(model: Model, config: EngineConfig = CONFIG, dtype: str = "auto") -> Checkpoint:
    """Load the weights, or make some. dtype: as in the catalogue."""
    with tempfile.TemporaryDirectory() as folder:
        source = model.source if isinstance(model.source, Path) else Path(folder)
        if isinstance(model.source, RandomUNet):
            write_random_text2img(source, unet=model.source)
        elif callable(model.source):
            model.source(source)
        values = {"id": "benchmark", "source": source, "kinds": tuple(Kind), "dtype": dtype}
        return load_checkpoint(ModelEntry.model_validate(values), config)


@contextlib.contextmanager
def running(
    checkpoint: Checkpoint, model: Model, config: EngineConfig = CONFIG
) -> Iterator[Engine]:
    """Start an engine that has measured its row caps, and compiled what it meets if it compiles."""
    specs, compiled = specs_of(model), checkpoint.compiled
    engine = Engine(config, checkpoint.variants.activate)
    with contextlib.closing(engine), torch.no_grad():
        for spec in specs[: len(model.sides_px)]:
            weave(checkpoint, engine, [spec.model_copy(update={"steps": 2})], measures=True)
        compiled.start()
        weave(checkpoint, engine, specs)
        while compiled.is_busy:
            time.sleep(0.5)
        yield engine


def compare(
    checkpoint: Checkpoint,
    model: Model,
    rounds: int,
    config: EngineConfig = CONFIG,
    ways: Mapping[str, Callable[[], object]] | None = None,
) -> Comparison:
    """Measure the engine and other ways in turns. ways: none: stock ones."""
    specs, make = specs_of(model), of_diffusers(checkpoint)
    ways = ways or {
        "sequential": partial(one_by_one, checkpoint, specs, make),
        "static": partial(in_groups, checkpoint, specs, make),
        "samplers": partial(one_by_one, checkpoint, specs),
    }
    with running(checkpoint, model, config) as engine:
        ways = {**ways, "weave": partial(weave, checkpoint, engine, specs)}
        times: dict[str, list[Clocks]] = {way: [] for way in ways}
        for run in ways.values():
            run()  # makes the prototypes of the schedulers
        before = engine.snapshot()
        for number in range(rounds):
            for way in sorted(ways, key=lambda way: (list(ways).index(way) + number) % len(ways)):
                times[way].append(seconds(ways[way]))
        after = engine.snapshot()
    rows = after.rows - before.rows
    mean = rows / (after.forwards - before.forwards)
    return Comparison(len(specs), times, mean, rows // rounds, after.row_caps)


def compare_compiled(checkpoint: Checkpoint, model: Model, rounds: int) -> Comparison:
    """Measure as `compare` does, and an engine whose denoiser is compiled among the ways."""
    config = CONFIG.model_copy(update={"compile": "default"})
    specs, twin = specs_of(model), load(model, config)
    with running(twin, model, config) as engine:
        ways: dict[str, Callable[[], object]] = {
            "sequential": partial(one_by_one, checkpoint, specs, of_diffusers(checkpoint)),
            "static": partial(in_groups, checkpoint, specs, of_diffusers(checkpoint)),
            "samplers": partial(one_by_one, checkpoint, specs),
            "compiled": partial(weave, twin, engine, specs),
        }
        return compare(checkpoint, model, rounds, ways=ways)


def row(name: str, found: Comparison) -> str:
    """Write a row of the table."""
    cells = [name, str(found.requests), f"{found.seconds('sequential'):.2f}"]
    ways = [way for way in _COLUMNS if way in found.times]
    cells += [f"{found.ratio(way, clock):.2f}" for way in ways for clock in (0, 1)]
    caps = ", ".join(str(cap) for cap in found.caps.values())
    return " | ".join(["", *cells, f"{found.rows:.1f}", caps, ""]).strip()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", choices=list(MODELS), action="append")
    parser.add_argument("--compile", action="store_true", help="compiling takes minutes a model")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.configure(LoggingConfig(level="WARNING"))
    ways = [way for way in _COLUMNS if way != "compiled" or options.compile]
    heads = [f"{_COLUMNS[way]}: wall | CPU" for way in ways]
    print(" | ".join(["| model | n | sequential, s", *heads, "rows | cap |"]))
    print("|---" * (5 + 2 * len(ways)) + "|")
    measure = compare_compiled if options.compile else compare
    for name in options.model or MODELS:
        model = MODELS[name]
        print(row(name, measure(load(model), model, options.rounds)), flush=True)


if __name__ == "__main__":
    main()
