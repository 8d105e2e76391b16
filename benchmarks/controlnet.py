"""ControlNets in shared forwards: against stock one after another, and the engine without nets.

Mixed requests differ in sampler, steps, kind, guidance, prompt and seed, and name one of three
ControlNets, or two each. The ways alternate, with the order turned each round. What a ControlNet
adds to a forward is measured at the row cap, where it counts most, beside the plain UNet.
Run: `python -m benchmarks.controlnet --help`.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from PIL import Image

from benchmarks.engine import CONFIG, MODELS, Model, canvas_of, load, seconds, specs_of
from serve_app.config import LoggingConfig
from serve_app.engine.engine import Engine
from serve_app.engine.request import Progress, Request
from serve_app.models import AddOn
from serve_app.pipelines.addons.controlnets import ControlNet
from serve_app.pipelines.addons.lookup import Named
from serve_app.pipelines.addons.variants import Variant
from serve_app.pipelines.checkpoint import Checkpoint
from serve_app.pipelines.control import Control
from serve_app.pipelines.specs import run_strength
from serve_app.pipelines.work import Painting, Sample
from serve_app.telemetry import logging
from serve_app.testing.controlnets import write_random_controlnet
from serve_app.types import GenerationSpec, Kind

NAMES = ("overhead-bound", "demo checkpoint, half size", "compute-bound")
_SCALE = 0.5


@dataclass(frozen=True, slots=True)
class Asked:
    """A request and the nets that it names; none: without any."""

    spec: GenerationSpec
    nets: tuple[ControlNet, ...]


def nets_of(checkpoint: Checkpoint, count: int = 3) -> list[ControlNet]:
    """Make random ControlNets for a checkpoint, and load them as its own."""
    with tempfile.TemporaryDirectory() as folder:
        named = []
        for seed in range(count):
            source = Path(folder) / str(seed)
            cell_px = int(checkpoint.base.vae_scale_factor)
            write_random_controlnet(source, checkpoint.base.unet, seed, cell_px=cell_px)
            named.append(Named(AddOn(id=str(seed), type="controlnet", source=source), str(seed)))
        return list(checkpoint.controlnets.get(named))


def weave(checkpoint: Checkpoint, engine: Engine, asked: Sequence[Asked]) -> None:
    """Run all requests through the engine."""
    futures = []
    for one in asked:
        spec, scales = one.spec, (_SCALE,) * len(one.nets)
        pictures = (_picture(spec),) * len(one.nets)
        body = Sample(
            checkpoint=checkpoint,
            spec=spec,
            canvas=canvas_of(spec),
            size=(spec.height, spec.width),
            scheduler=checkpoint.schedulers.make(spec),
            variant=Variant(),
            progress=Progress(),
            control=Control(one.nets, scales, pictures) if one.nets else None,
        )
        futures.append(engine.submit(Request(body, key=body.size, variant=body.variant)))
    assert all(isinstance(future.result(), Painting) for future in futures)


def one_by_one(checkpoint: Checkpoint, asked: Sequence[Asked]) -> None:
    """Run the stock pipelines on one request after another."""
    for one in asked:
        stock(checkpoint, one)


def stock(checkpoint: Checkpoint, asked: Asked) -> None:
    """Run the stock pipeline of a request."""
    spec, canvas = asked.spec, canvas_of(asked.spec)
    modules = [net.module for net in asked.nets]
    nets: object = modules if len(modules) > 1 else modules[0]
    parts = checkpoint.base.components | {"scheduler": checkpoint.schedulers.make(spec)}
    cls: type[DiffusionPipeline] = checkpoint.family.controlled[spec.kind]
    pipeline = cls(**parts, controlnet=nets, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    shown: object = [_picture(spec)] * len(modules) if len(modules) > 1 else _picture(spec)
    scale: object = [_SCALE] * len(modules) if len(modules) > 1 else _SCALE
    pictures: dict[str, object] = {"image": shown}
    if canvas is not None:
        pictures = {
            "image": canvas.init, "control_image": shown, "strength": run_strength(spec),
        }  # fmt: skip
    if canvas is not None and canvas.mask is not None:
        pictures |= {"mask_image": canvas.mask}
    pipeline(
        prompt=spec.prompt,
        height=spec.height,
        width=spec.width,
        num_inference_steps=spec.steps,
        guidance_scale=spec.guidance_scale,
        generator=torch.Generator().manual_seed(spec.seed),
        controlnet_conditioning_scale=scale,
        output_type="pt",
        **pictures,
    )


def _picture(spec: GenerationSpec) -> Image.Image:
    picture = Image.new("RGB", (spec.width, spec.height))
    picture.paste(
        (255, 255, 255), (spec.width // 4, spec.height // 4, spec.width // 2, spec.height)
    )
    return picture


def compare(name: str, model: Model, rounds: int, max_rows: int) -> list[str]:
    """Measure with one net and with two each, in turns; gives rows of the table.

    max_rows: row cap in place of a measured one, which a busy machine makes low; 0: measured.
    """
    checkpoint, specs = load(model), specs_of(model)
    nets = nets_of(checkpoint)
    own = {"measure_rows": False, "max_rows": max_rows} if max_rows else {}
    engine = Engine(CONFIG.model_copy(update=own), checkpoint.variants.activate)
    plain = [Asked(spec, ()) for spec in specs]
    first = plain[0].spec.model_copy(update={"steps": 2, "kind": Kind.TEXT2IMG})
    measuring = Sample(
        checkpoint, first, None, (first.height, first.width), checkpoint.schedulers.make(first),
        Variant(), Progress(),
    )  # fmt: skip
    request = Request(measuring, key=measuring.size, variant=Variant(), measures=True)
    engine.submit(request).result()
    rows = []
    for count in (1, 2):
        asked = [
            Asked(spec, tuple(nets[(number + other) % len(nets)] for other in range(count)))
            for number, spec in enumerate(specs)
        ]
        ways = {
            "stock": partial(one_by_one, checkpoint, asked),
            "weave": partial(weave, checkpoint, engine, asked),
            "plain": partial(weave, checkpoint, engine, plain),
        }
        rows.append(f"| {name} | {len(specs)} | {count} | {_cells(ways, engine, rounds)} |")
    engine.close()
    return rows


def _cells(ways: Mapping[str, Callable[[], None]], engine: Engine, rounds: int) -> str:
    """Time the ways in turns; ratios by wall clock and CPU time, and the rows of forwards."""
    times: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    forwards: dict[str, list[tuple[int, int]]] = {way: [] for way in ways}
    with torch.no_grad():
        for work in ways.values():
            work()
        for number in range(rounds):
            order = list(ways)[number % len(ways) :] + list(ways)[: number % len(ways)]
            for way in order:
                before = engine.snapshot()
                times[way].append(seconds(ways[way]))
                after = engine.snapshot()
                forwards[way].append((after.forwards - before.forwards, after.rows - before.rows))
    ratios = [
        f"{statistics.median(a[clock] / b[clock] for a, b in zip(one, other, strict=True)):.2f}"
        for one, other in ((times["stock"], times["weave"]), (times["weave"], times["plain"]))
        for clock in (0, 1)
    ]
    counts = [forwards[way][-1] for way in ("weave", "plain")]
    mean = [f"{rows / number:.1f}" for number, rows in counts]
    caps = ", ".join(str(cap) for cap in engine.snapshot().row_caps.values())
    seconds_of_stock = statistics.median(wall for wall, _ in times["stock"])
    cells = [f"{seconds_of_stock:.2f}", *ratios, ", ".join(mean), caps or "set"]
    return " | ".join(cells)


def step_cost(model: Model, rounds: int, rows: int) -> float:
    """Measure a UNet forward with one ControlNet's before it, as a ratio to the UNet's alone."""
    checkpoint = load(model)
    net = nets_of(checkpoint, 1)[0]
    spec = specs_of(model)[0]
    cells = spec.height // int(checkpoint.base.vae_scale_factor)
    sample = torch.randn(rows, 4, cells, cells)
    width = checkpoint.base.unet.config.cross_attention_dim
    words = torch.randn(rows, 77, width)
    shared = {"timestep": torch.full((rows,), 500.0), "encoder_hidden_states": words}
    embedding = net.module.controlnet_cond_embedding(torch.rand(1, 3, spec.height, spec.width))
    scales = torch.full((rows, net.num_outputs), _SCALE)

    def plain() -> None:
        checkpoint.denoiser.run({"sample": sample, **shared, "return_dict": False})

    def controlled() -> None:
        asked = {"embedding": embedding.expand(rows, -1, -1, -1), "scales": scales}
        outputs = net.lane.run({"sample": sample, **shared, **asked})
        assert isinstance(outputs, tuple), "lanes of ControlNets give tuples"
        added = {
            "down_block_additional_residuals": list(outputs[:-1]),
            "mid_block_additional_residual": outputs[-1],
        }
        checkpoint.denoiser.run({"sample": sample, **shared, **added, "return_dict": False})

    with torch.inference_mode():
        for work in (plain, controlled):
            work()
        ratios = [seconds(controlled)[1] / seconds(plain)[1] for _ in range(rounds * 5)]
    return statistics.median(ratios)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", choices=NAMES, action="append")
    parser.add_argument("--rows", type=int, default=0, help="row cap; 0: measured")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.configure(LoggingConfig(level="WARNING"))
    print("| model | n | nets | stock, s | weave: wall | CPU | nets: wall | CPU | rows | cap |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in options.model or NAMES:
        for row in compare(name, MODELS[name], options.rounds, options.rows):
            print(row, flush=True)
    print("\n| model | 2 rows | 8 rows | 16 rows |")
    print("|---|---|---|---|")
    for name in options.model or NAMES:
        ratios = [step_cost(MODELS[name], options.rounds, rows) for rows in (2, 8, 16)]
        print(f"| {name} | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} |", flush=True)


if __name__ == "__main__":
    main()
