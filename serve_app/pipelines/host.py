"""`HostCopies`: models in CPU memory, as read from their files, for when they are loaded again."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cachetools import LRUCache

if TYPE_CHECKING:  # the fake painter needs no torch
    from diffusers import DiffusionPipeline

__all__ = ["HostCopies", "HostSnapshot"]


@dataclass(frozen=True, slots=True)
class HostSnapshot:
    """What is held and was done. hits: loads that read no files."""

    held: int
    used_bytes: int
    hits: int


class HostCopies:
    """The second tier of a Pool replica: least recently used copies leave. Any thread may call.

    A copy is never painted with, so no LoRA, embedding or compiled denoiser sticks to it; who loads
    the model duplicates it onto the device.

    Args:
        budget_bytes: of all copies; 0: none are kept.
    """

    def __init__(self, budget_bytes: int) -> None:
        self._copies: LRUCache[str, DiffusionPipeline] = LRUCache(budget_bytes, _num_bytes)
        self._lock = threading.Lock()
        self._hits = 0

    def fits(self, num_bytes: int) -> bool:
        """Whether a model of this size may be kept."""
        return 0 < num_bytes <= self._copies.maxsize

    def get(self, key: str, read: Callable[[], "DiffusionPipeline"]) -> "DiffusionPipeline":
        """Return the copy of these weights, read the first time; raises what `read` does."""
        with self._lock:
            if (copy := self._copies.get(key)) is not None:
                self._hits += 1
                return copy
        copy = read()
        with self._lock:
            if _num_bytes(copy) <= self._copies.maxsize:
                self._copies[key] = copy
        return copy

    def forget(self, key: str) -> None:
        """Drop weights that turned out bad."""
        with self._lock:
            self._copies.pop(key, None)

    def snapshot(self) -> HostSnapshot:
        """Count what is held and was done."""
        with self._lock:
            return HostSnapshot(len(self._copies), int(self._copies.currsize), self._hits)


def _num_bytes(pipeline: "DiffusionPipeline") -> int:
    parts = [part for part in pipeline.components.values() if hasattr(part, "parameters")]
    return sum(t.nbytes for part in parts for t in (*part.parameters(), *part.buffers()))
