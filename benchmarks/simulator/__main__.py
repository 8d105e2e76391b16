"""Simulates a large cluster: ``python -m benchmarks.simulator``.

Five questions. How do the ways to place models do on the same devices and calls? And how many
devices does each need until 95 % of the calls begin within a goal? How do the rules that scale
a model's own deployment do through a day? How does one do whose calls name LoRAs, by ways to paint
and to route, by memory and by size? How long does a light
caller wait beside a heavy one? Tables go to the standard output, plots to a folder.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from benchmarks.popularity import PUBLISHED_GINI
from benchmarks.simulator.autoscale import Fleet, Rule, by_calls, by_work, fixed
from benchmarks.simulator.cluster import Clock, Cluster, Outcome, Router
from benchmarks.simulator.devices import Device
from benchmarks.simulator.fair import Seen, callers_table, callers_trials
from benchmarks.simulator.gpu import Gpu
from benchmarks.simulator.loras import TRIALS, Deployment
from benchmarks.simulator.report import (
    draw_day,
    draw_loras,
    draw_placement,
    draw_sizes,
    lora_table,
    table,
)
from benchmarks.simulator.routers import Hash, LeastLoaded, Placement
from benchmarks.simulator.traffic import Models, Traffic
from serve_app.config import DeploymentOptions, EngineConfig
from serve_app.models.scaling import ScalingRules

_SEED = 1
_GOAL_S = 2.0
_LADDER = (1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0)

Way = Callable[[Models, float, list[Gpu], int], Router]


_DAY_S = 7_200.0
RULES: dict[str, tuple[Rule, int]] = {
    "work done and at hand": (by_work(ScalingRules(0.75, 10)), 2),
    "calls / 16": (by_calls(16), 2),
    "calls / 4": (by_calls(4), 2),
    "calls / 2": (by_calls(2), 2),
    "fixed for the peak": (fixed(10), 10),
}


def _placement(models: Models, rate: float, gpus: list[Gpu], cell: int) -> Router:
    return Placement(models, rate, gpus, cell=cell, load=0.7, seed=_SEED)


WAYS: dict[str, Way] = {
    "placement": _placement,
    "hash": lambda *_: Hash(),
    "least loaded": lambda *_: LeastLoaded(_SEED),
}


def simulate(
    way: Way, num_gpus: int, rate: float, models: Models, options: argparse.Namespace
) -> Outcome:
    """Run one way; the first third of the time fills the caches and is not counted."""
    cluster = Cluster(num_gpus, models, Device(), EngineConfig(), options.quantum)
    router = way(models, rate, cluster.gpus, options.cell)
    calls = Traffic(rate).calls(models, options.seconds, _SEED)
    return cluster.run(router, calls, options.seconds, options.seconds / 3)


def compare(options: argparse.Namespace) -> None:
    """Put the same calls on the same devices in every way."""
    models = Models(options.models, options.gini, options.xl, _SEED)
    rate = options.load * options.gpus / models.mean_work_s()
    found = {
        name: simulate(way, options.gpus, rate, models, options)
        for name, way in tqdm(WAYS.items(), "ways")
    }
    title = (
        f"{options.gpus:,} devices, {options.models:,} models, {rate:,.0f} calls per second "
        f"({options.load:.0%} of what full devices could do)"
    )
    print(f"{title}\n\n{table(found)}\n")
    draw_placement(found, title, options.out / "placement.png")


def size(options: argparse.Namespace) -> None:
    """Add devices until the goal is met; the ladder is in multiples of full devices."""
    models = Models(options.models // 10, options.gini, options.xl, _SEED)
    full = options.gpus // 20
    rate = full / models.mean_work_s()
    most = round(full * _LADDER[-1])
    needed: dict[str, int | None] = dict.fromkeys(WAYS)
    for name, way in WAYS.items():
        for factor in tqdm(_LADDER, name):
            count = round(full * factor)
            if simulate(way, count, rate, models, options).wait_percentile(0.95) <= _GOAL_S:
                needed[name] = count
                break
    goal = f"95 % begin within {_GOAL_S:g} s: {rate:,.0f} calls per second, {len(models):,} models"
    print(f"{goal}, the work of {full} full devices. Devices needed: {needed}")
    draw_sizes(needed, most, goal, options.out / "sizes.png")


def scale(options: argparse.Namespace) -> None:
    """Scale an XL model's deployment by each rule; work for four full devices on average."""
    models = Models(1, 0.0, 1.0, _SEED)
    rate = 4 / models.work_s(0)
    settings = DeploymentOptions(min_replicas=1, max_replicas=20, downscale_delay_s=120)
    found = {}
    print("| rule | device hours | wait p50, s | p95, s | p99, s | most replicas |\n" + "|---" * 6)
    for name, (rule, start) in RULES.items():
        clock = Clock()
        fleet = Fleet(models.family(0), Device(), rule, settings, clock)
        fleet.begin(start)
        for call in Traffic(rate, 0.8, _DAY_S).calls(models, _DAY_S, _SEED):
            clock.run_until(call.at_s)
            fleet.submit(call)
        clock.run_until(_DAY_S)
        waits = " | ".join(f"{fleet.outcome.wait_percentile(q):.2f}" for q in (0.5, 0.95, 0.99))
        most = max(count for _, count in fleet.counts)
        print(f"| {name} | {fleet.outcome.gpu_s / 3600:.1f} | {waits} | {most} |")
        found[name] = (fleet.outcome, fleet.counts)
    draw_day(found, options.out / "day.png")


def name_loras(options: argparse.Namespace) -> None:
    """Put the calls of one model on its replicas, whose LoRAs are many more than fit."""
    base = Deployment(options.replicas, options.load, options.seconds)
    for title, trials in TRIALS.items():
        found = {name: one.run() for name, one in tqdm(list(trials(base)), title)}
        print(f"{title}\n\n{lora_table(found)}\n")
        draw_loras(found, options.out / f"loras-{title}.png")


def meet(_options: argparse.Namespace) -> None:
    """Put a light caller beside one who has a hundred pictures open."""
    found: dict[str, Seen] = {}
    bounds_s: dict[str, float] = {}
    alone: Seen | None = None
    for name, callers in tqdm(list(callers_trials()), "callers"):
        found[name] = callers.run()
        if not callers.num_heavy or alone is None:
            alone = found[name]
        bounds_s[name] = callers.bound_s(alone)
    print(callers_table(found, bounds_s))


def main() -> None:
    """Answer the questions that are asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpus", type=int, default=1_000)
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--gini", type=float, default=PUBLISHED_GINI, help="of the popularity")
    parser.add_argument("--xl", type=float, default=0.4, help="share of models of the XL family")
    parser.add_argument("--load", type=float, default=0.6, help="share of the devices' capacity")
    parser.add_argument("--seconds", type=float, default=300, help="simulated time of each run")
    parser.add_argument("--replicas", type=int, default=8, help="of the model with LoRAs")
    parser.add_argument("--cell", type=int, default=50, help="replicas of one pool")
    parser.add_argument("--quantum", type=int, default=5, help="steps that one forward stands for")
    parser.add_argument("--out", type=Path, default=Path("out/simulator"))
    parser.add_argument("--only", nargs="+", choices=tuple(QUESTIONS), default=tuple(QUESTIONS))
    options = parser.parse_args()
    for question in options.only:
        QUESTIONS[question](options)


QUESTIONS: dict[str, Callable[[argparse.Namespace], None]] = {
    "placement": compare,
    "sizes": size,
    "day": scale,
    "loras": name_loras,
    "callers": meet,
}

if __name__ == "__main__":
    main()
