"""`LoraTiers`: where one replica has its LoRAs, and what it does for those that a call names.

The caches are those of the service, and so is the order of things: a call's LoRAs are fetched from
when it comes in, by one of `engine.fetch_threads`; several that are not there are read side by
side, by `engine.lora_reads` threads of all calls, and reads do not slow each other; one that
another call is reading is waited for; those of calls inside never leave the device.
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

At = Callable[[float, Callable[[], None]], None]


class Found(IntEnum):
    """Where the LoRAs of a call were: the slowest place."""

    ON_DEVICE = 0
    IN_CPU_MEMORY = 1
    ON_DISK = 2


@dataclass(slots=True)
class _Fetch:
    """A call's LoRAs, and what follows. left: those that are still on their way."""

    loras: Sequence[int]
    then: Callable[[Found], None]
    found: Found = Found.ON_DEVICE
    left: int = 0


@dataclass(slots=True)
class _Move:
    """A LoRA on its way to the device, and what happens when it is there."""

    found: Found
    then: list[Callable[[Found], None]] = field(default_factory=list)


class LoraTiers:
    """The LoRAs on the device and in CPU memory.

    Args:
        family: of the model; says how large a LoRA is.
        device: how long it takes to bring one.
        config: has the sizes of the caches and the numbers of threads.
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
        self._fetches: deque[_Fetch] = deque()
        self._reads: deque[tuple[int, _Fetch]] = deque()
        self._idle_fetchers, self._idle_readers = config.fetch_threads, config.lora_reads

    def fetch(self, loras: Sequence[int], then: Callable[[Found], None]) -> Callable[[], None]:
        """Bring LoRAs to the device, then say where they were; at once where all are there.

        Returns a function that lets them go again; until then they stay.
        """
        held = ExitStack()
        held.enter_context(self._uses.holding([str(lora) for lora in loras]))
        self._fetches.append(_Fetch(loras, then))
        self._begin()
        return held.close

    def _begin(self) -> None:
        """Put idle threads to work."""
        while self._idle_readers and self._reads:
            self._idle_readers -= 1
            self._bring(*self._reads.popleft(), by_reader=True)
        while self._idle_fetchers and self._fetches:
            self._idle_fetchers -= 1
            self._look(self._fetches.popleft())

    def _look(self, fetch: _Fetch) -> None:
        away = [lora for lora in fetch.loras if self._kept.get(str(lora)) is None]
        fetch.left = len(away)
        if not away:
            self._end(fetch)
        elif len(away) == 1:
            self._bring(away[0], fetch, by_reader=False)
        else:
            self._reads.extend((lora, fetch) for lora in away)
            self._begin()

    def _bring(self, lora: int, fetch: _Fetch, *, by_reader: bool) -> None:
        """Bring a LoRA to the device, or wait for whoever does so."""

        def arrived(found: Found) -> None:
            self._idle_readers += by_reader
            fetch.found = max(fetch.found, found)
            fetch.left -= 1
            if not fetch.left:
                self._end(fetch)

        if self._kept.get(str(lora)) is not None:  # it came meanwhile
            arrived(Found.ON_DEVICE)
            return
        move = self._moves.get(lora)
        if move is None:
            move = self._moves[lora] = _Move(self._place(lora))
            self._at(self._seconds[move.found], partial(self._arrived, lora))
        move.then.append(arrived)

    def _end(self, fetch: _Fetch) -> None:
        self._idle_fetchers += 1
        fetch.then(fetch.found)

    def _place(self, lora: int) -> Found:
        is_near = self._host.get(str(lora)) is not None
        return Found.IN_CPU_MEMORY if is_near else Found.ON_DISK

    def _arrived(self, lora: int) -> None:
        for tier in (self._host, self._kept):
            tier.put(str(lora), lora, self._lora_bytes)
        move = self._moves.pop(lora)
        for then in move.then:
            then(move.found)
        self._begin()
