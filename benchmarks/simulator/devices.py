"""How long a device takes: denoiser forwards by row count, VAE, loading of weights.

No GPU was at hand when this was written. The times are those of the arithmetic for an H200 that
docs/scaling.md repeats with its sources; put measured ones here once there are any.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from serve_app.engine.row_caps import profile

__all__ = ["FAMILIES", "LORA_SHARE", "Device", "Family", "row_cap"]


# What LoRAs add to a forward in which any row has some, as a share of it. Measured on a CPU by
# `benchmarks.lora_rows`, 18 rows with 8 LoRAs on attention and convolutions: 0.28 on the demo
# checkpoint and 0.28 on the compute-bound model. On attention alone it was 0.06 to 0.1 in a trial.
LORA_SHARE = 0.28


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture at its native size.

    floor_s: seconds of a forward of few rows, which is all launches. row_s: seconds of each row
    once the device is full. decode_s: seconds of the VAE for one picture. weights_bytes: as loaded.
    lora_bytes: of one LoRA.
    """

    name: str
    floor_s: float
    row_s: float
    decode_s: float
    weights_bytes: int
    lora_bytes: int

    def forward_s(self, rows: int) -> float:
        """Seconds of one denoiser forward."""
        return max(self.floor_s, self.row_s * rows)


FAMILIES = (
    # LoRAs: rank 128 in 16 bits; the 341 MiB of the one that Katz (USENIX ATC 2025) measured.
    Family("sd15", 0.011, 0.002, 0.006, 2_100_000_000, 151_000_000),
    Family("sdxl", 0.022, 0.014, 0.021, 7_000_000_000, 357_600_000),
)


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU and what feeds it.

    budget_bytes: of weights on the device. load_bytes_s: read from the node's disk and copied.
    load_s: seconds that a load takes besides, however small (constructors, the warm-up picture).
    price: of one hour, in any currency; only ratios are reported.
    lora_s: seconds that reading a LoRA takes beside its bytes; with them it is the 230 ms of Katz
        for 341 MiB. A store in the network takes longer: the median of GenTD26 is 4.4 s.
    copy_bytes_s: from CPU memory to the device, pageable: arithmetic, half of PCIe 4's 25 GB/s.
    """

    budget_bytes: int = 70_000_000_000
    load_bytes_s: float = 2e9
    load_s: float = 3.0
    price: float = 1.0
    lora_s: float = 0.05
    copy_bytes_s: float = 12e9

    def seconds_to_load(self, family: Family) -> float:
        """Seconds from the request of a model to its first forward."""
        return self.load_s + family.weights_bytes / self.load_bytes_s

    def seconds_to_read_lora(self, family: Family) -> float:
        """Seconds until a LoRA's file is in CPU memory, judged and converted."""
        return self.lora_s + family.lora_bytes / self.load_bytes_s

    def seconds_to_copy_lora(self, family: Family) -> float:
        """Seconds until a LoRA in CPU memory is on the device."""
        return family.lora_bytes / self.copy_bytes_s


@cache
def row_cap(family: Family, max_rows: int, growth: float) -> int:
    """Rows of one forward, found as the engine finds them at start-up."""
    seconds: Callable[[int], float] = family.forward_s
    return profile(seconds, max_rows, growth)
