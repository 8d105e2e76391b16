"""Who asks for what, when: Poisson arrivals with a daily swing, over what published traces ask for.

Steps and kinds are those of GenTD26 (github.com/alibaba/clusterdata, `cluster-trace-v2026-GenAI`),
the popularity of models that of the study about it (`benchmarks/popularity.py`).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.lora_mix import LoraMix
from benchmarks.popularity import zipf
from benchmarks.simulator.devices import FAMILIES, Family
from serve_app.fairness import PLAIN, Stake

__all__ = ["RUNS", "Call", "Models", "Traffic"]

_ROWS = 2  # of a guided request
_CHUNK = 4096  # calls drawn at once
# Shares of 26,823 requests, rare values added to near ones; the mean is that of the trace, 31.
_STEPS = {20: 0.005, 25: 0.005, 28: 0.01, 30: 0.905, 35: 0.01, 40: 0.055, 50: 0.01}
# With an input picture only `strength` of the steps run. No trace says which strength.
_TEXT2IMG, _FROM_PICTURE, _STRENGTH = 0.911, 0.089, 0.7


def _runs() -> dict[int, float]:
    runs: dict[int, float] = {}
    for steps, share in _STEPS.items():
        for strength, part in ((1.0, _TEXT2IMG), (_STRENGTH, _FROM_PICTURE)):
            run = round(steps * strength)
            runs[run] = runs.get(run, 0.0) + share * part
    return runs


RUNS = _runs()  # shares of the calls, by the steps that run


@dataclass(frozen=True, slots=True)
class Call:
    """One picture that somebody wants. `at_s` counts from the start of the simulation.

    size: calls of different ones share no forward; the times are those of the native size all the
    same. stake: whose it is.
    """

    at_s: float
    model: int
    steps: int
    rows: int = _ROWS
    loras: tuple[int, ...] = ()
    size: int = 0
    stake: Stake = PLAIN


class Models:
    """Which models there are: model 0 is the most popular.

    coefficient: Gini's, of their popularity.
    share_xl: part of the models with the larger architecture.
    """

    def __init__(self, count: int, coefficient: float, share_xl: float, seed: int) -> None:
        rng = np.random.default_rng([seed, 1])
        self.popularity = zipf(count, coefficient)
        self._is_xl = rng.random(count) < share_xl

    def __len__(self) -> int:
        return len(self.popularity)

    def family(self, model: int) -> Family:
        """Return the architecture of a model."""
        return FAMILIES[int(self._is_xl[model])]

    def work_s(self, model: int) -> float:
        """Seconds of a full device that a mean call of the model takes."""
        family = self.family(model)
        steps = sum(steps * share for steps, share in RUNS.items())
        return steps * _ROWS * family.row_s + family.decode_s

    def mean_work_s(self) -> float:
        """Seconds of a full device that a mean call takes."""
        return float(sum(self.popularity[m] * self.work_s(m) for m in range(len(self))))


@dataclass(frozen=True, slots=True)
class Traffic:
    """Calls per second: `rate` on the mean, times 1 +- `swing` over a period of `day_s` seconds.

    loras: that calls name; none: they name none.
    """

    rate: float
    swing: float = 0.0
    day_s: float = 86_400.0
    loras: LoraMix | None = None

    def calls(self, models: Models, length_s: float, seed: int) -> Iterator[Call]:
        """Draw the calls in order of time, by thinning (Lewis and Shedler 1979)."""
        rng = np.random.default_rng([seed, 2])
        peak = self.rate * (1 + self.swing)
        at_s = 0.0
        while True:
            gaps = rng.exponential(1 / peak, _CHUNK)
            kept = rng.random(_CHUNK)
            chosen = rng.choice(len(models), _CHUNK, p=models.popularity)
            steps = rng.choice(list(RUNS), _CHUNK, p=list(RUNS.values()))
            named = self.loras.draw(rng, _CHUNK) if self.loras else [()] * _CHUNK
            for gap, keep, model, count, loras in zip(
                gaps, kept, chosen, steps, named, strict=True
            ):
                at_s += float(gap)
                if at_s >= length_s:
                    return
                if keep * peak <= self._rate_at(at_s):
                    yield Call(at_s, int(model), int(count), loras=loras)

    def _rate_at(self, at_s: float) -> float:
        return self.rate * (1 - self.swing * math.cos(2 * math.pi * at_s / self.day_s))
