"""How many rows one forward may have, per lane and size: measured once, halved when memory ends.

Batching pays while the device has idle time to fill. `profile` doubles the rows as long as that
costs less than `growth` times the time; beyond it rows only slow one another down. Pure Python.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress

__all__ = ["RowCaps", "Size", "profile"]

Size = tuple[str, int]  # name of a lane, elements in one row of the sample


def profile(time_forward: Callable[[int], float], max_rows: int, growth: float) -> int:
    """Find the row count up to which batching pays.

    time_forward: seconds of one forward with so many rows; raises MemoryError when they do not fit.
    growth: factor of time, above 1, that doubling the rows may cost.
    """
    rows = min(2, max_rows)  # a guided request
    try:
        seconds = time_forward(rows)
    except MemoryError:
        return 1
    with suppress(MemoryError):
        while 2 * rows <= max_rows:
            doubled = time_forward(2 * rows)
            if doubled > growth * seconds:
                break
            rows, seconds = 2 * rows, doubled
    return rows


class RowCaps:
    """Row caps by size.

    Args:
        max_rows: bound of all caps.
        measured: caps that are known from before.
    """

    def __init__(self, max_rows: int, measured: Mapping[Size, int] | None = None) -> None:
        self.max_rows = max_rows
        self.measured: dict[Size, int] = {}
        self._caps: dict[Size, int] = {}
        for (lane, size), cap in (measured or {}).items():
            self.learn(lane, size, cap)

    def has(self, lane: str, size: int) -> bool:
        """Whether this size was measured or has run out of memory."""
        return (lane, size) in self._caps

    def limit(self, lane: str, size: int) -> int:
        """Rows that a forward may have, at least 1.

        A size that was not measured gets the cap of the nearest one, scaled by size.
        """
        cap = self._caps.get((lane, size))
        if cap is not None:
            return cap
        known = [(abs(other - size), other) for name, other in self._caps if name == lane]
        if not known:
            return self.max_rows
        nearest = min(known)[1]
        scaled = self._caps[lane, nearest] * nearest // size
        return min(self.max_rows, max(2, scaled))

    def learn(self, lane: str, size: int, cap: int) -> None:
        """Remember a measured cap."""
        self.measured[lane, size] = self._caps[lane, size] = max(1, min(cap, self.max_rows))

    def halve(self, lane: str, size: int, rows: int) -> bool:
        """Lower the cap below a row count that ran out of memory; False when it was one row.

        It does not count as measured: who else was using the memory may be gone tomorrow.
        """
        if rows <= 1:
            return False
        self._caps[lane, size] = max(1, min(rows, self.limit(lane, size)) // 2)
        return True

    def table(self) -> dict[str, int]:
        """Caps by "lane/size", for logs and metrics."""
        return {f"{lane}/{size}": cap for (lane, size), cap in sorted(self._caps.items())}
