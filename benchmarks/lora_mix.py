"""Which LoRAs calls name, by the trace of Katz (USENIX ATC 2025; 550,000 calls of two services)."""

import numpy as np
import numpy.typing as npt

from benchmarks.popularity import Shares, zipf

__all__ = ["POPULARITY", "LoraMix", "services"]

# Of its 14,500 LoRAs, whose "heavy tail" is taken to be that of the models.
POPULARITY = zipf(14_500)


class LoraMix:
    """Sets of LoRAs: LoRA 0 is the most popular, none comes twice in a set.

    Args:
        one: share of the calls that name one.
        two: share of those that name two; all others name none.
        popularity: shares of the LoRAs.
    """

    def __init__(self, one: float, two: float, popularity: Shares = POPULARITY) -> None:
        self._sizes = (1 - one - two, one, two)
        self._popularity = popularity / popularity.sum()

    def draw(self, rng: np.random.Generator, num_calls: int) -> list[tuple[int, ...]]:
        """Draw the LoRAs of so many calls."""
        sizes = rng.choice(3, num_calls, p=self._sizes)
        firsts, seconds = self._ranks(rng, num_calls), self._ranks(rng, num_calls)
        while (
            same := firsts == seconds
        ).any():  # the first is kept, or the popular ones were rarer
            seconds[same] = self._ranks(rng, int(same.sum()))
        return [
            (int(first), int(second))[:size]
            for first, second, size in zip(firsts, seconds, sizes, strict=True)
        ]

    def _ranks(self, rng: np.random.Generator, count: int) -> npt.NDArray[np.int64]:
        return rng.choice(len(self._popularity), count, p=self._popularity)


def services(popularity: Shares = POPULARITY) -> dict[str, LoraMix]:
    """Return the two services of the trace.

    Over 95 % of the calls name a LoRA: two are named by 91 % of those of A, 19 % of those of B.
    """
    return {"A": LoraMix(0.04, 0.91, popularity), "B": LoraMix(0.76, 0.19, popularity)}
