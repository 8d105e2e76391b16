"""What requests name and replicas keep: within a budget of bytes, and never let go while in use."""

import contextlib
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator
from threading import Lock
from typing import Generic, TypeVar

from torch import nn

__all__ = ["Lru", "Uses", "num_bytes"]

T = TypeVar("T")


class Uses:
    """Which keys the jobs at work name. From any thread; waits for nobody."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts: Counter[str] = Counter()

    @contextlib.contextmanager
    def holding(self, keys: Collection[str]) -> Iterator[None]:
        """Count a use of each key; to be entered before what they name is asked for."""
        with self._lock:
            self._counts.update(keys)
        try:
            yield
        finally:
            with self._lock:
                self._counts.subtract(keys)
                self._counts = +self._counts

    def __contains__(self, key: object) -> bool:
        with self._lock:
            return key in self._counts


class Lru(Generic[T]):
    """Things by key. The caller holds a lock around every call.

    Args:
        max_bytes: of all things together; what is in use may take more, until another one comes.
        uses: tells what may not go.
    """

    def __init__(self, max_bytes: int, uses: Uses) -> None:
        self._max_bytes = max_bytes
        self._uses = uses
        self._things: OrderedDict[str, tuple[T, int]] = OrderedDict()  # the latest asked for last

    def fits(self, num_bytes: int) -> bool:
        """Whether a thing has room at all; what is needed is `put` whatever it takes."""
        return num_bytes <= self._max_bytes

    def get(self, key: str) -> T | None:
        """Return what is kept under a key."""
        if key not in self._things:
            return None
        self._things.move_to_end(key)
        return self._things[key][0]

    def take(self, key: str) -> T | None:
        """Return what is kept under a key, and keep it no longer."""
        return self._things.pop(key, (None, 0))[0]

    def put(self, key: str, thing: T, num_bytes: int) -> list[T]:
        """Keep a thing; gives those that had to go for it, the longest not asked for first."""
        self._things[key] = (thing, num_bytes)
        used = sum(size for _, size in self._things.values())
        gone: list[T] = []
        for other in list(self._things):
            if used <= self._max_bytes:
                break
            if other != key and other not in self._uses:
                left, size = self._things.pop(other)
                used -= size
                gone.append(left)
        return gone


def num_bytes(*modules: nn.Module) -> int:
    """Memory of the modules' parameters and buffers; what they share counts once."""
    tensors = (tensor for part in modules for tensor in (*part.parameters(), *part.buffers()))
    return sum({id(tensor): tensor.nbytes for tensor in tensors}.values())
