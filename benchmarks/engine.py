"""Benchmark 1: the engine against the stock pipeline, one after another and in static batches.

16 mixed requests: 10 samplers, 10 to 50 steps, three kinds, other guidance, prompts and seeds, of
one size or of two. Static batching joins requests that agree in sampler, steps, guidance, kind and
size, which is all that a batched pipeline call can do. Run: `python -m benchmarks.engine --help`.
"""

import argparse
import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from serve_app.config import EngineConfig
from serve_app.engine.engine import Engine
from serve_app.engine.request import Progress, Request
from serve_app.models import ModelEntry
from serve_app.pipelines.checkpoint import Checkpoint
from serve_app.pipelines.compose import Canvas
from serve_app.pipelines.loader import load_checkpoint
from serve_app.pipelines.randomweights import RandomUNet, write_random_text2img
from serve_app.pipelines.specs import run_strength
from serve_app.pipelines.work import Painting, Sample
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


@dataclass(frozen=True, slots=True)
class Model:
    """A random UNet, the picture sides that are asked for, and the share of steps that is run."""

    unet: RandomUNet
    sides_px: tuple[int, ...]
    steps: tuple[int, int]
    requests: int = 16


# Little arithmetic per call, as on a GPU that waits for its launches.
_TINY = RandomUNet(4, (8, 16), (False, True), sample_size=4)
MODELS = {
    "overhead-bound": Model(_TINY, (32,), (10, 50)),
    "overhead-bound, two sizes": Model(_TINY, (32, 40), (10, 50)),
    "compute-bound": Model(
        RandomUNet(4, (128, 256, 384), (False, True, True), sample_size=32), (256,), (2, 5), 8
    ),
}


def specs_of(model: Model, mixed: bool) -> list[GenerationSpec]:
    """Draw the requests; without `mixed` all are equal but for prompt and seed."""
    rng = random.Random(4)
    samplers = itertools.cycle(SCHEDULERS)
    drawn = [
        GenerationSpec(
            model_id="random",
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
    if mixed:
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


def weave(checkpoint: Checkpoint, engine: Engine, specs: Iterable[GenerationSpec]) -> None:
    """Run all requests through the engine."""
    futures = []
    for spec in specs:
        body = Sample(
            checkpoint=checkpoint,
            spec=spec,
            canvas=canvas_of(spec),
            size=(spec.height, spec.width),
            scheduler=checkpoint.schedulers.make(spec),
            variant=checkpoint.variants.of(spec),
            progress=Progress(),
        )
        request = Request(body, key=body.size, variant=body.variant)
        futures.append(engine.submit(request))
    assert all(isinstance(future.result(), Painting) for future in futures)


def stock(checkpoint: Checkpoint, specs: list[GenerationSpec]) -> None:
    """Run requests that agree in all but prompt and seed in one call of the stock pipeline."""
    spec, canvas = specs[0], canvas_of(specs[0])
    parts = checkpoint.base.components | {"scheduler": checkpoint.schedulers.make(spec)}
    pipeline = checkpoint.family.pipelines[spec.kind](**parts, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    pictures: dict[str, object] = {"height": spec.height, "width": spec.width}
    if canvas is not None:
        pictures = {"image": canvas.init, "strength": run_strength(spec)}
    if canvas is not None and canvas.mask is not None:
        pictures |= {"mask_image": canvas.mask, "height": spec.height, "width": spec.width}
    pipeline(
        prompt=[one.prompt for one in specs],
        num_inference_steps=spec.steps,
        guidance_scale=spec.guidance_scale,
        generator=[torch.Generator().manual_seed(one.seed) for one in specs],
        output_type="pt",
        **pictures,
    )


def grouped(specs: list[GenerationSpec]) -> list[list[GenerationSpec]]:
    """Group the requests that a static batch can hold."""
    groups: dict[GenerationSpec, list[GenerationSpec]] = {}
    for spec in specs:
        groups.setdefault(spec.model_copy(update={"prompt": "", "seed": 0}), []).append(spec)
    return list(groups.values())


def seconds(work: Callable[[], None]) -> tuple[float, float]:
    """Time some work: wall clock and CPU time of the process."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def compare(name: str, model: Model, mixed: bool, rounds: int) -> str:
    """Measure the three ways in turns and give a row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        write_random_text2img(Path(folder), unet=model.unet)
        entry = ModelEntry(id="random", source=Path(folder), kinds=tuple(Kind))
        config = EngineConfig(device="cpu", max_rows=64)
        checkpoint = load_checkpoint(entry, config)
    specs = specs_of(model, mixed)
    engine = Engine(config, checkpoint.variants.activate)
    ways = {
        "sequential": lambda: [stock(checkpoint, [spec]) for spec in specs],
        "static": lambda: [stock(checkpoint, group) for group in grouped(specs)],
        "weave": lambda: weave(checkpoint, engine, specs),
    }
    times: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    with torch.no_grad():
        for work in ways.values():
            work()  # warm up: caches, prototypes of the schedulers
        before = engine.snapshot()
        for _ in range(rounds):
            for way, work in ways.items():
                times[way].append(seconds(work))
    after = engine.snapshot()
    engine.close()
    rows = (after.rows - before.rows) / (after.forwards - before.forwards)
    cells = [name, "mixed" if mixed else "equal", str(len(specs))]
    cells.append(f"{statistics.median(wall for wall, _ in times['sequential']):.2f}")
    for way in ("static", "weave"):
        for clock in (0, 1):
            ratios = [
                one[clock] / other[clock]
                for one, other in zip(times["sequential"], times[way], strict=True)
            ]
            cells.append(f"{statistics.median(ratios):.2f}")
    return " | ".join(["", *cells, f"{rows:.1f}", ""]).strip()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", choices=list(MODELS), action="append")
    parser.add_argument("--steps", type=float, default=1.0, help="factor on the steps")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(
        "| model | requests | n | sequential, s | static: wall | CPU | weave: wall | CPU | rows |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name in options.model or MODELS:
        low, high = MODELS[name].steps
        steps = (max(1, int(low * options.steps)), max(1, int(high * options.steps)))
        for mixed in (True, False):
            print(compare(name, replace(MODELS[name], steps=steps), mixed, options.rounds))


if __name__ == "__main__":
    main()
