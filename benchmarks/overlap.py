"""Benchmark: could the denoiser run beside what requests do between its forwards, on two threads?

Four loops, each for a while and in turns: forwards alone; requests without their forwards alone,
that is starts, samplers and VAE, with a denoiser that gives zeros; both at once on two threads; two
threads of forwards. From the speeds at which both go at once follows what an engine could gain by
two groups in flight. Run: `python -m benchmarks.overlap --help`.
"""

import argparse
import copy
import dataclasses
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle

import torch
from torch import nn

from benchmarks.engine import CONFIG, MODELS, Model, canvas_of, load, specs_of, weave
from serve_app.config import LoggingConfig
from serve_app.engine.engine import Engine
from serve_app.engine.request import Progress
from serve_app.pipelines.addons.variants import Variant
from serve_app.pipelines.checkpoint import Checkpoint
from serve_app.pipelines.work import Sample
from serve_app.telemetry import logging
from serve_app.types import GenerationSpec

NAMES = ("overhead-bound", "demo checkpoint, half size", "compute-bound")
Loop = Callable[[], None]  # one round of it


def forwards(checkpoint: Checkpoint, unet: nn.Module, rows: int, side_px: int) -> Loop:
    """Return what runs one forward of a denoiser."""
    cells, config = side_px // 8, checkpoint.base.unet.config
    sample = torch.randn(rows, config.in_channels, cells, cells)
    texts = torch.randn(rows, 77, config.cross_attention_dim)
    times = torch.full((rows,), 500.0)

    @torch.inference_mode()
    def run() -> None:
        unet(sample, times, texts)

    return run


def between(checkpoint: Checkpoint, specs: Sequence[GenerationSpec]) -> Loop:
    """Return what runs one request, but for its forwards."""
    lane = dataclasses.replace(
        checkpoint.denoiser, run=lambda arguments: (torch.zeros_like(_sample(arguments)),)
    )
    bare, following = dataclasses.replace(checkpoint, denoiser=lane), cycle(specs)

    @torch.inference_mode()
    def run() -> None:
        spec = next(following)
        Sample(
            checkpoint=bare,
            spec=spec,
            canvas=canvas_of(spec),
            size=(spec.height, spec.width),
            scheduler=bare.schedulers.make(spec),
            variant=Variant(),
            progress=Progress(),
        )()

    return run


def _sample(arguments: Mapping[str, object]) -> torch.Tensor:
    sample = arguments["sample"]
    assert isinstance(sample, torch.Tensor), "the sample is a tensor"
    return sample


def speeds(loops: Sequence[Loop], seconds: float) -> list[float]:
    """Run loops at once, a thread each; rounds per second of each."""
    done, is_over = [0] * len(loops), threading.Event()

    def work(number: int) -> None:
        while not is_over.is_set():
            loops[number]()
            done[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(loops))]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    is_over.set()
    for thread in threads:
        thread.join()
    return [count / (time.perf_counter() - began) for count in done]


def share_between(checkpoint: Checkpoint, model: Model) -> float:
    """Return which share of the engine's time is not the denoiser's forwards."""
    specs, engine = specs_of(model), Engine(CONFIG, checkpoint.variants.activate)
    weave(checkpoint, engine, [specs[0].model_copy(update={"steps": 2})], measures=True)
    weave(checkpoint, engine, specs)
    before, began = engine.snapshot(), time.perf_counter()
    weave(checkpoint, engine, specs)
    wall, after = time.perf_counter() - began, engine.snapshot()
    engine.close()
    stage = "forward denoiser"
    return 1 - (after.stage_s[stage] - before.stage_s[stage]) / wall


def gained(share: float, denoiser: float, rest: float) -> float:
    """Return how many times faster an engine were that does both at once.

    share: of its time that is not the denoiser's. denoiser, rest: speeds of both at once, against
    those alone. What is left when one is done runs alone.
    """
    lengths = (1 - share) / denoiser, share / rest
    first = min(lengths)
    left = (1 - share) - first * denoiser if first == lengths[1] else share - first * rest
    return 1 / (first + left)


def compare(name: str, seconds: float, rounds: int) -> str:
    """Measure the loops in turns and return a row of the table."""
    model = MODELS[name]
    checkpoint = load(model)
    share = share_between(checkpoint, model)
    unets = checkpoint.base.unet, copy.deepcopy(checkpoint.base.unet)
    rows = min(18, 2 * model.requests)
    one, other = (forwards(checkpoint, unet, rows, model.sides_px[0]) for unet in unets)
    rest = between(checkpoint, specs_of(model))
    for loop in (one, other, rest):
        loop()
    found = []
    for _ in range(rounds):
        (alone,), (without,) = speeds([one], seconds), speeds([rest], seconds)
        both, twice = speeds([one, rest], seconds), speeds([one, other], seconds)
        found.append((both[0] / alone, both[1] / without, sum(twice) / alone))
    denoiser, others, twice_over = (
        statistics.median(column) for column in zip(*found, strict=True)
    )
    gain = gained(share, denoiser, others)
    cells = (f"{share:.2f}", f"{denoiser:.2f}", f"{others:.2f}", f"{twice_over:.2f}", f"{gain:.2f}")
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each loop")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", choices=list(NAMES), action="append")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.configure(LoggingConfig(level="WARNING"))
    print("Speeds on two threads at once against alone, and what would come of it.\n")
    print("| model | share between forwards | denoiser | rest | two denoisers | engine |")
    print("|---|---|---|---|---|---|")
    for name in options.model or NAMES:
        print(compare(name, options.seconds, options.rounds), flush=True)


if __name__ == "__main__":
    main()
