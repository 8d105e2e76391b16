"""What the simulations say, as tables and pictures."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np

from benchmarks.simulator.cluster import Outcome
from benchmarks.simulator.lora_tiers import Found

mpl.use("Agg")
from matplotlib import pyplot as plt  # after the backend is chosen
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["draw_day", "draw_loras", "draw_placement", "draw_sizes", "lora_table", "table"]

_WAITS_S = np.geomspace(0.01, 1000, 200)


def table(rows: Mapping[str, Outcome]) -> str:
    """Write the figures of each way as Markdown."""
    lines = [
        "| way | pictures | utilisation | wait p50, s | p95, s | p99, s | loads per hour |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, outcome in rows.items():
        waits = " | ".join(f"{outcome.wait_percentile(share):.2f}" for share in (0.5, 0.95, 0.99))
        lines.append(
            f"| {name} | {len(outcome.waits_s):,} | {outcome.utilisation:.2f} | {waits} "
            f"| {outcome.loads_per_hour:,.0f} |"
        )
    return "\n".join(lines)


def lora_table(rows: Mapping[str, Outcome]) -> str:
    """Write waits and where calls found their LoRAs as Markdown."""
    lines = [
        "| deployment | pictures | wait p50, s | p95, s | p99, s | picture p95, s "
        "| LoRAs on the device | in CPU memory | read |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, outcome in rows.items():
        waits = (f"{outcome.wait_percentile(share):.2f}" for share in (0.5, 0.95, 0.99))
        found = (f"{outcome.share_found(place):.0%}" for place in Found)
        latency = f"{np.quantile(outcome.latencies_s, 0.95):.2f}"
        cells = (name, f"{len(outcome.waits_s):,}", *waits, latency, *found)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw_loras(rows: Mapping[str, Outcome], path: Path) -> None:
    """Draw the waits of each deployment, and where its calls found their LoRAs."""
    size = (13, 1.5 + 0.28 * len(rows))
    figure, (waits, places) = plt.subplots(1, 2, figsize=size, sharey=True)
    names = list(rows)
    for share, label in ((0.95, "95 %"), (0.5, "half of the calls")):
        waits.barh(names, [one.wait_percentile(share) for one in rows.values()], label=label)
    waits.set(xscale="log", xlabel="seconds within which so many calls have their first step")
    before = np.zeros(len(rows))
    for place in Found:
        shares = np.array([outcome.share_found(place) for outcome in rows.values()])
        places.barh(names, shares, left=before, label=place.name.replace("_", " ").lower())
        before += shares
    places.set(xlabel="share of the calls with LoRAs that found them there")
    waits.invert_yaxis()
    for axes in (waits, places):
        axes.grid(alpha=0.3, axis="x")
        axes.legend(loc="lower right", fontsize=8)
    _save(figure, "LoRAs of one model's calls", path)


def draw_placement(rows: Mapping[str, Outcome], title: str, path: Path) -> None:
    """Draw waits, utilisation and loads of each way beside one another."""
    figure, (waits, busy, loads) = plt.subplots(1, 3, figsize=(15, 4.2))
    for name, outcome in rows.items():
        _draw_waits(waits, name, outcome)
        times, shares = zip(*outcome.busy_over_time, strict=True)
        busy.plot(times, shares, label=name)
    waits.set(xscale="log", xlabel="wait until the first step, s", ylabel="share of calls")
    waits.legend()
    busy.set(xlabel="simulated time, s", ylabel="devices at work", ylim=(0, 1.02))
    loads.bar(list(rows), [outcome.loads_per_hour for outcome in rows.values()])
    loads.set(yscale="log", ylabel="model loads per hour")
    for axes in (waits, busy, loads):
        axes.grid(alpha=0.3)
    _save(figure, title, path)


def _draw_waits(axes: Axes, name: str, outcome: Outcome) -> None:
    waits = np.sort(outcome.waits_s)
    shares = np.searchsorted(waits, _WAITS_S, side="right") / len(waits)
    axes.plot(_WAITS_S, shares, label=name)


def draw_sizes(needed: Mapping[str, int | None], most: int, goal: str, path: Path) -> None:
    """Draw how many devices each way needs for the same goal, and the price that this makes.

    most: devices that were tried; None needs more.
    """
    figure, axes = plt.subplots(figsize=(6, 4.2))
    best = min(count for count in needed.values() if count is not None)
    bars = axes.bar(list(needed), [count or most for count in needed.values()])
    labels = [
        f"more than {most}\nmore than {most / best:.1f} x"
        if count is None
        else f"{count}\n{count / best:.2f} x"
        for count in needed.values()
    ]
    axes.bar_label(bars, labels)
    axes.set(ylabel="devices", ylim=(0, 1.2 * max(count or most for count in needed.values())))
    axes.grid(alpha=0.3, axis="y")
    _save(figure, goal, path)


def draw_day(rows: Mapping[str, tuple[Outcome, list[tuple[float, int]]]], path: Path) -> None:
    """Draw the number of replicas through the day, and the waits that came of it."""
    figure, (replicas, waits) = plt.subplots(1, 2, figsize=(12, 4.2))
    for name, (outcome, counts) in rows.items():
        times, numbers = zip(*counts, strict=True)
        replicas.step(np.array(times) / 3600, numbers, label=name)
        _draw_waits(waits, name, outcome)
    replicas.set(xlabel="hours", ylabel="replicas")
    waits.set(xscale="log", xlabel="wait until the first step, s", ylabel="share of calls")
    waits.legend()
    for axes in (replicas, waits):
        axes.grid(alpha=0.3)
    _save(figure, "One model's replicas through a day of two hours", path)


def _save(figure: Figure, title: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)
