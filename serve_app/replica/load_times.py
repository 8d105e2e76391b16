"""`LoadTimes`: how long loading a model will take, from the loads that were measured."""

from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["LoadTimes"]

K = TypeVar("K", bound=Hashable)
_WEIGHT = 0.3  # of the newest load in the moving average


class LoadTimes(Generic[K]):
    """Seconds of loads: a model's own, else by its bytes, else nothing is known and it is 0."""

    def __init__(self) -> None:
        self._seconds: dict[K, float] = {}
        self._per_byte = 0.0

    def observe(self, key: K, num_bytes: int, seconds: float) -> None:
        """Learn from a finished load."""
        known = self._seconds.get(key, seconds)
        self._seconds[key] = known + _WEIGHT * (seconds - known)
        per_byte = seconds / max(1, num_bytes)
        self._per_byte += (_WEIGHT if self._per_byte else 1.0) * (per_byte - self._per_byte)

    def expect_s(self, key: K, num_bytes: int) -> float:
        """Seconds that a load of this model will take."""
        return self._seconds.get(key, self._per_byte * num_bytes)
