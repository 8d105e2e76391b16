"""Who asks for what, when: Poisson arrivals over models of Zipf popularity, with a daily swing."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.simulator.devices import FAMILIES, Family

__all__ = ["Call", "Models", "Traffic"]

_ROWS = 2  # of a guided request
_STEPS = (20, 25, 30, 40, 50)


@dataclass(frozen=True, slots=True)
class Call:
    """One picture that somebody wants. `at_s` counts from the start of the simulation."""

    at_s: float
    model: int
    steps: int
    rows: int = _ROWS


class Models:
    """Which models there are: model 0 is the most popular.

    exponent: of Zipf's law; 1 says that the model of rank r is asked for 1/r as often as the first.
    share_xl: part of the models with the larger architecture.
    """

    def __init__(self, count: int, exponent: float, share_xl: float, seed: int) -> None:
        rng = np.random.default_rng([seed, 1])
        weights = np.arange(1, count + 1) ** -exponent
        self.popularity = weights / weights.sum()
        self._is_xl = rng.random(count) < share_xl

    def __len__(self) -> int:
        return len(self.popularity)

    def family(self, model: int) -> Family:
        """Return the architecture of a model."""
        return FAMILIES[int(self._is_xl[model])]

    def work_s(self, model: int) -> float:
        """Seconds of a full device that a mean call of the model takes."""
        family = self.family(model)
        return float(np.mean(_STEPS)) * _ROWS * family.row_s + family.decode_s

    def mean_work_s(self) -> float:
        """Seconds of a full device that a mean call takes."""
        return float(sum(self.popularity[m] * self.work_s(m) for m in range(len(self))))


@dataclass(frozen=True, slots=True)
class Traffic:
    """Calls per second: `rate` on the mean, times 1 +- `swing` over a period of `day_s` seconds."""

    rate: float
    swing: float = 0.0
    day_s: float = 86_400.0

    def calls(self, models: Models, length_s: float, seed: int) -> Iterator[Call]:
        """Draw the calls in order of time, by thinning (Lewis and Shedler 1979)."""
        rng = np.random.default_rng([seed, 2])
        peak = self.rate * (1 + self.swing)
        at_s = 0.0
        while True:
            gaps = rng.exponential(1 / peak, 4096)
            kept = rng.random(4096)
            chosen = rng.choice(len(models), 4096, p=models.popularity)
            steps = rng.choice(_STEPS, 4096)
            for gap, keep, model, count in zip(gaps, kept, chosen, steps, strict=True):
                at_s += float(gap)
                if at_s >= length_s:
                    return
                if keep * peak <= self._rate_at(at_s):
                    yield Call(at_s, int(model), int(count))

    def _rate_at(self, at_s: float) -> float:
        return self.rate * (1 - self.swing * math.cos(2 * math.pi * at_s / self.day_s))
