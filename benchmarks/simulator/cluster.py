"""`Cluster`: the clock, the devices, the route of every call, and what is counted."""

import heapq
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from benchmarks.simulator.devices import Device
from benchmarks.simulator.gpu import Gpu, Work
from benchmarks.simulator.lora_tiers import Found
from benchmarks.simulator.traffic import Call, Models
from serve_app.config import EngineConfig

__all__ = ["Clock", "Cluster", "Outcome", "Router"]


class Clock:
    """Runs functions at their times, in order."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def at(self, delay_s: float, event: Callable[[], None]) -> None:
        """Call a function after so many seconds."""
        heapq.heappush(self._events, (self.now_s + delay_s, next(self._numbers), event))

    def run_until(self, time_s: float) -> None:
        """Run all events up to this time."""
        while self._events and self._events[0][0] <= time_s:
            self.now_s, _, event = heapq.heappop(self._events)
            event()
        self.now_s = time_s

    def run_all(self) -> None:
        """Run all pending events, and those that they cause."""
        while self._events:
            self.now_s, _, event = heapq.heappop(self._events)
            event()


class Router(Protocol):
    """Chooses the replica of a call."""

    def choose(self, call: Call, gpus: list[Gpu]) -> Gpu:
        """Name the replica that the call goes to."""
        ...


@dataclass(slots=True)
class Outcome:
    """What came of a simulation. Waits are until the first step, latencies until the picture.

    found: where the LoRAs were of each call that names any.
    """

    arrived_s: list[float] = field(default_factory=list)
    waits_s: list[float] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    found: list[Found] = field(default_factory=list)
    length_s: float = 0.0
    busy_s: float = 0.0
    gpu_s: float = 0.0
    loads: int = 0
    busy_over_time: list[tuple[float, float]] = field(default_factory=list)

    @property
    def utilisation(self) -> float:
        """Share of the devices' time with a forward at work."""
        return self.busy_s / self.gpu_s

    @property
    def loads_per_hour(self) -> float:
        """Loads of the whole cluster."""
        return self.loads / self.length_s * 3600

    def cost_per_picture(self, device: Device) -> float:
        """Price of the devices' time per picture made."""
        return self.gpu_s / 3600 * device.price / max(1, len(self.waits_s))

    def share_found(self, place: Found) -> float:
        """Share of the calls with LoRAs that found the farthest of them there."""
        return self.found.count(place) / len(self.found) if self.found else float("nan")

    def wait_percentile(self, share: float) -> float:
        """Seconds within which so large a share of the calls had begun."""
        waits: npt.NDArray[np.float64] = np.array(self.waits_s)
        return float(np.quantile(waits, share)) if len(waits) else float("nan")


class Cluster:
    """Some equal devices behind one router."""

    def __init__(
        self,
        num_gpus: int,
        models: Models,
        device: Device,
        config: EngineConfig,
        quantum: int = 5,
    ) -> None:
        self.clock = Clock()
        self._models = models
        self._seq = itertools.count()
        self.gpus = [
            Gpu(number, device, config, quantum, self.clock.at, lambda: self.clock.now_s)
            for number in range(num_gpus)
        ]

    def run(self, router: Router, calls: Iterable[Call], length_s: float, skip_s: float) -> Outcome:
        """Simulate all calls to their end; what happens after `length_s` is not charged.

        skip_s: from when on calls are counted; before it the caches fill.
        """
        outcome = Outcome(length_s=length_s - skip_s)
        marks = iter(np.arange(0, length_s + 1e-9, length_s / 100))
        next(marks)
        mark_s, busy_s, at_skip = next(marks), 0.0, (0.0, 0)

        for call in itertools.chain(calls, [None]):
            at_s = length_s if call is None else call.at_s
            while mark_s is not None and mark_s <= at_s:
                self.clock.run_until(mark_s)
                now_busy = sum(gpu.busy_s for gpu in self.gpus)
                span_s = length_s / 100 * len(self.gpus)
                outcome.busy_over_time.append((mark_s, (now_busy - busy_s) / span_s))
                busy_s = now_busy
                if mark_s <= skip_s:
                    at_skip = (now_busy, sum(gpu.loads for gpu in self.gpus))
                mark_s = next(marks, None)
            if call is not None:
                self.clock.run_until(at_s)
                self._submit(router, call, outcome, is_counted=call.at_s >= skip_s)
        outcome.busy_s = busy_s - at_skip[0]
        outcome.loads = sum(gpu.loads for gpu in self.gpus) - at_skip[1]
        outcome.gpu_s = (length_s - skip_s) * len(self.gpus)
        self.clock.run_all()
        return outcome

    def _submit(self, router: Router, call: Call, outcome: Outcome, *, is_counted: bool) -> None:
        def done(work: Work, now_s: float) -> None:
            if is_counted:
                outcome.arrived_s.append(work.call.at_s)
                outcome.waits_s.append(work.started_s - work.call.at_s)
                outcome.latencies_s.append(now_s - work.call.at_s)
                if work.found is not None:
                    outcome.found.append(work.found)

        gpu = router.choose(call, self.gpus)
        work = Work(call, done, left=call.steps)
        gpu.submit(next(self._seq), self._models.family(call.model), work)
