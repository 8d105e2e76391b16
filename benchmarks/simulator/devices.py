"""How long a device takes: denoiser forwards by row count, VAE, loading of weights.

No GPU was at hand when this was written. The times are those of the arithmetic for an H200 that
docs/scaling.md repeats with its sources; put measured ones here once there are any.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from serve_app.engine.row_caps import profile

__all__ = ["FAMILIES", "Device", "Family", "row_cap"]


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture at its native size.

    floor_s: seconds of a forward of few rows, which is all launches. row_s: seconds of each row
    once the device is full. decode_s: seconds of the VAE for one picture. weights_bytes: as loaded.
    """

    name: str
    floor_s: float
    row_s: float
    decode_s: float
    weights_bytes: int

    def forward_s(self, rows: int) -> float:
        """Seconds of one denoiser forward."""
        return max(self.floor_s, self.row_s * rows)


FAMILIES = (
    Family("sd15", 0.011, 0.002, 0.006, 2_100_000_000),
    Family("sdxl", 0.022, 0.014, 0.021, 7_000_000_000),
)


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU and what feeds it.

    budget_bytes: of weights on the device. load_bytes_s: read from the node's disk and copied.
    load_s: seconds that a load takes besides, however small (constructors, the warm-up picture).
    price: of one hour, in any currency; only ratios are reported.
    """

    budget_bytes: int = 70_000_000_000
    load_bytes_s: float = 2e9
    load_s: float = 3.0
    price: float = 1.0

    def seconds_to_load(self, family: Family) -> float:
        """Seconds from the request of a model to its first forward."""
        return self.load_s + family.weights_bytes / self.load_bytes_s


@cache
def row_cap(family: Family, max_rows: int, growth: float) -> int:
    """Rows of one forward, found as the engine finds them at start-up."""
    seconds: Callable[[int], float] = family.forward_s
    return profile(seconds, max_rows, growth)
