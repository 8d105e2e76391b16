"""A heavy and a light caller on one device: how long the light one waits for each picture.

The heavy one has so many pictures open all the time: when one ends he asks for the next. The light
one asks for a picture every few seconds. The planner is the real one.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from benchmarks.simulator.cluster import Clock
from benchmarks.simulator.devices import FAMILIES, Device, Family, row_cap
from benchmarks.simulator.gpu import Gpu, Work
from benchmarks.simulator.traffic import Call
from serve_app.config import EngineConfig
from serve_app.fairness import PLAIN, Stake

__all__ = ["Callers", "Seen", "callers_table", "callers_trials"]

_HEAVY, _LIGHT = Stake("heavy"), Stake("light")
_PERIOD_S = 7.3  # of the light one: no multiple of what a picture takes
_STEPS = 30


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of it: seconds of each picture of the light one, and how long all took.

    num_heavy: pictures that the heavy one got meanwhile.
    """

    latencies_s: tuple[float, ...]
    num_heavy: int
    length_s: float

    @property
    def mean_s(self) -> float:
        """Seconds that a picture of the light one takes on the mean."""
        return float(np.mean(self.latencies_s))

    @property
    def per_s(self) -> float:
        """Pictures per second, of both."""
        return (len(self.latencies_s) + self.num_heavy) / self.length_s

    @property
    def most_s(self) -> float:
        """Seconds of the slowest one."""
        return max(self.latencies_s)


@dataclass(frozen=True, slots=True)
class Callers:
    """What is simulated.

    num_heavy: pictures that the heavy one has open. num_light: that the light one asks for.
    has_size: whether the light one asks for another size, so that he can share no forward with the
    other. is_fair: whether the planner is told whose the pictures are.
    """

    family: Family = FAMILIES[0]
    num_heavy: int = 100
    num_light: int = 12
    has_size: bool = False
    is_fair: bool = True
    config: EngineConfig = field(default_factory=EngineConfig)

    def run(self) -> Seen:
        """Simulate until the light one has all his pictures."""
        clock, numbers = Clock(), itertools.count()
        gpu = Gpu(0, Device(), self.config, 1, clock.at, lambda: clock.now_s)
        gpu.hold(0, self.family)
        latencies: list[float] = []
        num_heavy, length_s = 0, 0.0

        def send(call: Call, *, is_light: bool = False) -> None:
            def done(_work: Work, now_s: float) -> None:
                nonlocal num_heavy, length_s
                if is_light:
                    latencies.append(now_s - call.at_s)
                    length_s = now_s
                elif len(latencies) < self.num_light:
                    num_heavy += 1
                    send(replace(call, at_s=now_s))

            gpu.submit(next(numbers), self.family, Work(call, done, left=call.steps))

        heavy, light = (_HEAVY, _LIGHT) if self.is_fair else (PLAIN, PLAIN)
        for _ in range(self.num_heavy):
            send(Call(0.0, 0, _STEPS, stake=heavy))
        for number in range(1, self.num_light + 1):
            call = Call(number * _PERIOD_S, 0, _STEPS, size=int(self.has_size), stake=light)
            clock.at(call.at_s, partial(send, call, is_light=True))
        clock.run_all()
        return Seen(tuple(latencies), num_heavy, length_s)

    def bound_s(self, alone: Seen) -> float:
        """Seconds that he may take: one more forward for each of his own, and a tenth."""
        rows = row_cap(self.family, self.config.max_rows, self.config.row_growth)
        return 1.1 * alone.most_s + _STEPS * self.family.forward_s(rows)


def callers_trials() -> Iterator[tuple[str, Callers]]:
    """Name what is compared, for each family: the light one alone, and beside a heavy one."""
    for family in FAMILIES:
        base = Callers(family)
        yield f"{family.name}: alone", replace(base, num_heavy=0)
        yield f"{family.name}: beside the heavy one, by age", replace(base, is_fair=False)
        yield f"{family.name}: beside the heavy one, by weight", base
        own = replace(base, has_size=True)
        yield f"{family.name}: the same, of another size than his", own


def callers_table(rows: Mapping[str, Seen], bounds_s: Mapping[str, float]) -> str:
    """Write what each trial gave as Markdown."""
    lines = [
        "| light caller | picture, mean, s | slowest, s | bound, s | pictures of both per s |",
        "|---|---|---|---|---|",
    ]
    for name, seen in rows.items():
        bound = f"{bounds_s[name]:.2f}"
        cells = (name, f"{seen.mean_s:.2f}", f"{seen.most_s:.2f}", bound, f"{seen.per_s:.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
