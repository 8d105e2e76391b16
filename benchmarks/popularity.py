"""How often things are asked for, by rank: Zipf's law with the Gini coefficient of traces.

A study of production traffic (SoCC 2025) gives the popularity of models as Gini 0.876, the most
popular 5 % taking 78 % of the requests. Of the laws with one parameter, set to this Gini, Zipf's
meets the second figure: 77 % for 200 things, 78 % for 400, 79 % for 1,000, 80 % for 10,000, at the
exponents 1.43, 1.33, 1.24 and 1.12. A log-normal law gives 70 %, a Weibull law 65 %. The requests
that the study published (GenTD26, 26,823 of 87 models) have Gini 0.871.
"""

import numpy as np
import numpy.typing as npt

__all__ = ["PUBLISHED_GINI", "Shares", "gini", "zipf"]

PUBLISHED_GINI = 0.876

Shares = npt.NDArray[np.float64]


def gini(shares: npt.ArrayLike) -> float:
    """Return the Gini coefficient: 0 where all are equal, (n - 1) / n where one has all."""
    rising = np.sort(np.asarray(shares, dtype=np.float64))
    count = len(rising)
    ranks = np.arange(1, count + 1)
    return float(2 * np.sum(ranks * rising) / (count * rising.sum()) - (count + 1) / count)


def zipf(count: int, coefficient: float = PUBLISHED_GINI) -> Shares:
    """Return the shares of `count` things, the greatest first, with this Gini coefficient.

    Raises ValueError for one that so few things cannot have; a single thing has any.
    """
    if count > 1 and not 0 <= coefficient < (count - 1) / count:
        raise ValueError(f"{count} things cannot have the Gini coefficient {coefficient}")
    low, high = 0.0, 64.0
    for _ in range(50):  # halvings: an exponent to the last bits
        middle = (low + high) / 2
        low, high = (middle, high) if gini(_law(count, middle)) < coefficient else (low, middle)
    return _law(count, low)


def _law(count: int, exponent: float) -> Shares:
    weights = np.arange(1, count + 1, dtype=np.float64) ** -exponent
    return np.asarray(weights / weights.sum())
