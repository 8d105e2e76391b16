"""What was measured, as medians over the rounds, in Markdown."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.http.load import Open
from benchmarks.http.servers import OURS

__all__ = ["LOADS", "Measured", "best_peer", "markdown"]

LOADS = (0.3, 0.7, 0.9)  # of the best peer's saturation
_SHOWN_PROCESSES = 6


@dataclass(slots=True)
class Measured:
    """Everything about one server, one entry per round."""

    rates_hz: list[float] = field(default_factory=list)
    cores: list[dict[str, float]] = field(default_factory=list)  # busy cores by process
    open_loops: dict[float, list[Open]] = field(default_factory=dict)

    def rate_hz(self) -> float:
        """Pictures per second at saturation."""
        return statistics.median(self.rates_hz)


def best_peer(measured: dict[str, Measured]) -> str:
    """Name the peer with the highest saturation."""
    peers = [name for name in measured if name != OURS] or [OURS]
    return max(peers, key=lambda name: measured[name].rate_hz())


def markdown(measured: dict[str, Measured], load_hz: float) -> str:
    """Write both tables; `load_hz`: saturation of the best peer that the loads refer to."""
    return "\n".join([*_results(measured, load_hz), "", *_processes(measured)])


def _results(measured: dict[str, Measured], load_hz: float) -> list[str]:
    loads = [f"{load:.0%} ({load * load_hz:.1f}/s)" for load in LOADS]
    best = measured[best_peer(measured)].rate_hz()
    lines = [
        "| server | saturation, pictures/s | of the best peer | "
        + " | ".join(f"{load}: mean / p50 / p95, s" for load in loads)
        + " |",
        "|---|" + "---|" * (2 + len(loads)),
    ]
    for name, result in measured.items():
        cells = [f"{result.rate_hz():.2f}", f"{result.rate_hz() / best:.2f}"]
        cells += [_latencies(result.open_loops[load]) for load in LOADS if result.open_loops]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _latencies(rounds: Sequence[Open]) -> str:
    def middle(measure: Callable[[Sequence[float]], float]) -> str:
        return f"{statistics.median(measure(one.latencies_s) for one in rounds):.2f}"

    measures = (statistics.fmean, lambda all_s: _quantile(all_s, 0.5), _p95)
    return " / ".join(middle(measure) for measure in measures)


def _p95(values: Sequence[float]) -> float:
    return _quantile(values, 0.95)


def _quantile(values: Sequence[float], share: float) -> float:
    """Nearest rank."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def _processes(measured: dict[str, Measured]) -> list[str]:
    lines = ["| server | busy cores at saturation, ms of CPU per picture |", "|---|---|"]
    for name, result in measured.items():
        names = {process for cores in result.cores for process in cores}
        busy = {
            process: statistics.median(cores.get(process, 0.0) for cores in result.cores)
            for process in names
        }
        shown = sorted(busy, key=lambda process: -busy[process])[:_SHOWN_PROCESSES]
        parts = [f"{p} {busy[p]:.2f}, {busy[p] / result.rate_hz() * 1e3:.0f} ms" for p in shown]
        lines.append(f"| {name} | {sum(busy.values()):.2f} in all: " + "; ".join(parts) + " |")
    return lines
