"""How far to grow a forward: latency against load for row caps chosen by `engine.row_growth`.

A simulation with measured forward times, since the question is what queues do. Guided requests of
10 to 50 steps arrive at random; each tick serves the oldest ones up to the cap. A load of 1 is
what requests one after another would keep up with. Run: `python -m benchmarks.row_growth`.
"""

import random
import statistics
from collections.abc import Mapping
from itertools import pairwise

from serve_app.engine.row_caps import profile

Times = Mapping[int, float]  # seconds of one forward by rows

# The demo checkpoint: CPU, one thread, best of four. The others grow by a factor per doubling.
MODELS: Mapping[str, Times] = {
    "demo, 128 px": {2: 0.0172, 4: 0.0198, 8: 0.0238, 16: 0.0325, 32: 0.0502},
    "demo, 256 px": {2: 0.0219, 4: 0.0286, 8: 0.0451, 16: 0.0697, 32: 0.1264},
    "1.7 per doubling": {2 * 2**n: 0.02 * 1.7**n for n in range(5)},
    "1.9 per doubling": {2 * 2**n: 0.02 * 1.9**n for n in range(5)},
}
LOADS = (0.3, 0.6, 0.9, 1.2, 1.6)
GROWTHS = (1.5, 1.8, 2.1)
REQUESTS = 2000
MEAN_STEPS = 30


def forward_s(times: Times, rows: int) -> float:
    """Interpolate between the measured row counts."""
    for low, high in pairwise(sorted(times)):
        if rows <= high:
            share = (rows - low) / (high - low)
            return times[low] + share * (times[high] - times[low])
    raise ValueError(f"{rows} rows were not measured")


def latencies(times: Times, cap: int, per_s: float) -> list[float]:
    """Return the seconds of each request, ascending, at so many arrivals per second."""
    rng = random.Random(1)
    arrivals: list[tuple[float, int]] = []
    at = 0.0
    for _ in range(REQUESTS):
        at += rng.expovariate(per_s)
        arrivals.append((at, rng.randint(10, 2 * MEAN_STEPS - 10)))
    arrivals.reverse()
    live: list[list[float]] = []  # arrival, steps to go; oldest first
    now, done = 0.0, []
    while arrivals or live:
        if not live:
            now = max(now, arrivals[-1][0])
        while arrivals and arrivals[-1][0] <= now:
            live.append(list(arrivals.pop()))
        batch = live[: cap // 2]
        now += forward_s(times, 2 * len(batch))
        for request in batch:
            request[1] -= 1
        done += [now - request[0] for request in batch if not request[1]]
        live = [request for request in live if request[1]]
    return sorted(done)


def main() -> None:
    """Print mean and 95th percentile of the latency in seconds."""
    loads = " | ".join(f"load {load}" for load in LOADS)
    print(f"| forward | row_growth | cap | {loads} |\n|---|---|---|{'---|' * len(LOADS)}")
    for name, times in MODELS.items():
        one_per_s = 1 / (MEAN_STEPS * times[2])
        for growth in GROWTHS:
            cap = profile(times.__getitem__, max(times), growth)
            cells = []
            for load in LOADS:
                found = latencies(times, cap, load * one_per_s)
                cells.append(f"{statistics.mean(found):.2f}, {found[int(0.95 * len(found))]:.2f}")
            print(f"| {name} | {growth} | {cap} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
