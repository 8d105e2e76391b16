"""`LoraTiers`: where one replica has its LoRAs, and what it does for those that a call names.

The caches are those of the service, and so is the order of things: a call's LoRAs are fetched from
when it comes in, one after the other, by one of a few threads; one that another call is reading is
waited for; those of calls inside never leave the device.
"""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial

from benchmarks.simulator.devices import Device, Family
from serve_app.config import EngineConfig
from serve_app.pipelines.addons.lru import Lru, Uses

__all__ = ["Found", "LoraTiers"]

_THREADS = 4  # of a painter, for add-ons

At = Callable[[float, Callable[[], None]], None]


class Found(IntEnum):
    """Where the LoRAs of a call were: the slowest place."""

    ON_DEVICE = 0
    IN_CPU_MEMORY = 1
    ON_DISK = 2


@dataclass(slots=True)
class _Fetch:
    """A call's LoRAs that are still to be looked for, and what follows."""

    left: deque[int]
    then: Callable[[Found], None]
    found: Found = Found.ON_DEVICE


@dataclass(slots=True)
class _Move:
    """A LoRA on its way to the device, and the fetches that wait for it."""

    found: Found
    waiting: list[_Fetch] = field(default_factory=list)


class LoraTiers:
    """The LoRAs on the device and in CPU memory.

    Args:
        family: of the model; says how large a LoRA is.
        device: how long it takes to bring one.
        config: has `lora_bytes` and `lora_host_bytes`.
        at: the simulation's clock, which calls a function after so many seconds.
    """

    def __init__(self, family: Family, device: Device, config: EngineConfig, at: At) -> None:
        self._uses = Uses()
        self._kept: Lru[int] = Lru(config.lora_bytes, self._uses)
        self._host: Lru[int] = Lru(config.lora_host_bytes, Uses())
        self._lora_bytes = family.lora_bytes
        copy_s = device.seconds_to_copy_lora(family)
        self._seconds = {
            Found.IN_CPU_MEMORY: copy_s,
            Found.ON_DISK: device.seconds_to_read_lora(family) + copy_s,
        }
        self._at = at
        self._moves: dict[int, _Move] = {}
        self._queue: deque[_Fetch] = deque()
        self._idle = _THREADS

    def fetch(self, loras: Sequence[int], then: Callable[[Found], None]) -> Callable[[], None]:
        """Bring LoRAs to the device, then say where they were; at once where all are there.

        Returns a function that lets them go again; until then they stay.
        """
        held = ExitStack()
        held.enter_context(self._uses.holding([str(lora) for lora in loras]))
        self._queue.append(_Fetch(deque(loras), then))
        self._begin()
        return held.close

    def _begin(self) -> None:
        while self._idle and self._queue:
            self._idle -= 1
            self._go_on(self._queue.popleft())

    def _go_on(self, fetch: _Fetch) -> None:
        """Look for the LoRAs that are left, until one has to be waited for."""
        while fetch.left:
            lora = fetch.left.popleft()
            move = self._moves.get(lora)
            if move is None and self._kept.get(str(lora)) is not None:
                continue
            if move is None:
                move = self._moves[lora] = _Move(self._place(lora))
                self._at(self._seconds[move.found], partial(self._arrived, lora))
            fetch.found = max(fetch.found, move.found)
            move.waiting.append(fetch)
            return
        self._idle += 1
        fetch.then(fetch.found)

    def _place(self, lora: int) -> Found:
        is_near = self._host.get(str(lora)) is not None
        return Found.IN_CPU_MEMORY if is_near else Found.ON_DISK

    def _arrived(self, lora: int) -> None:
        for tier in (self._host, self._kept):
            tier.put(str(lora), lora, self._lora_bytes)
        for fetch in self._moves.pop(lora).waiting:
            self._go_on(fetch)
        self._begin()
