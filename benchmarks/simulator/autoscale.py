"""One model's own deployment through a day, scaled by work, by a count of calls, or not."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from benchmarks.simulator.cluster import Clock, Outcome
from benchmarks.simulator.devices import Device, Family, row_cap
from benchmarks.simulator.gpu import Gpu, Work
from benchmarks.simulator.traffic import Call
from serve_app.config import DeploymentOptions, EngineConfig
from serve_app.models.scaling import Demand, ScalingRules, desired_replicas, work_s

__all__ = ["Fleet", "Rule", "by_calls", "by_work", "fixed"]

_DECIDE_S = 5.0  # between decisions, as Serve's controller and its metrics allow
_BUSY_S = 60.0  # over which replicas tell how busy they were
_START_S = 15.0  # a replica's process, imports and warm-up, beside the load of the weights


@dataclass(slots=True)
class Fleet:
    """The replicas of one deployment; `rule` says how many there should be."""

    family: Family
    device: Device
    rule: "Rule"
    options: DeploymentOptions
    clock: Clock
    config: EngineConfig = field(default_factory=EngineConfig)
    active: list[Gpu] = field(default_factory=list)
    leaving: list[Gpu] = field(default_factory=list)
    outcome: Outcome = field(default_factory=Outcome)
    counts: list[tuple[float, int]] = field(default_factory=list)
    _starting: int = 0
    _wanted_since: float = 0.0
    _wanted: int = 0
    _seq: int = 0
    _gone_s: float = 0.0
    _busy_s: deque[tuple[float, float]] = field(default_factory=deque)
    _rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(5))

    def begin(self, num_replicas: int) -> None:
        """Start with so many replicas, and decide from then on."""
        for _ in range(num_replicas):
            self._join()
        self._decide()

    def submit(self, call: Call) -> None:
        """Send a call to the less loaded of two replicas."""
        first, second = self._rng.integers(0, len(self.active), 2)
        gpu = min(self.active[first], self.active[second], key=lambda one: one.queued)
        self._seq += 1
        gpu.submit(self._seq, self.family, Work(call, self._done, left=call.steps))

    @property
    def num_calls(self) -> int:
        """Calls inside all replicas."""
        return sum(gpu.queued for gpu in (*self.active, *self.leaving))

    @property
    def work_at_hand_s(self) -> float:
        """Seconds of full forwards that the calls inside still take."""
        cap = row_cap(self.family, self.config.max_rows, self.config.row_growth)
        left = sum(gpu.row_steps() for gpu in (*self.active, *self.leaving))
        return work_s(left, self.family.forward_s(cap), cap)

    @property
    def busy(self) -> float:
        """Replicas that were at work in the last minute."""
        (then_s, before), (now_s, after) = self._busy_s[0], self._busy_s[-1]
        return (after - before) / (now_s - then_s) if now_s > then_s else 0.0

    def _done(self, work: Work, now_s: float) -> None:
        self.outcome.arrived_s.append(work.call.at_s)
        self.outcome.waits_s.append(work.started_s - work.call.at_s)
        self.outcome.latencies_s.append(now_s - work.call.at_s)

    def _join(self) -> None:
        gpu = Gpu(0, self.device, self.config, 5, self.clock.at, lambda: self.clock.now_s)
        gpu.hold(0, self.family)
        self.active.append(gpu)

    def _started(self) -> None:
        self._starting -= 1
        self._join()

    def _decide(self) -> None:
        """Ask the rule; act when it has said the same direction for the deployment's delay."""
        self._gone_s += sum(gpu.busy_s for gpu in self.leaving if not gpu.queued)
        self.leaving = [gpu for gpu in self.leaving if gpu.queued]
        at_work_s = sum(gpu.busy_s for gpu in (*self.active, *self.leaving))
        self._busy_s.append((self.clock.now_s, self._gone_s + at_work_s))
        while self._busy_s[0][0] < self.clock.now_s - _BUSY_S:
            self._busy_s.popleft()
        here = len(self.active) + self._starting
        self.outcome.gpu_s += _DECIDE_S * (here + len(self.leaving))
        self.counts.append((self.clock.now_s, here))
        low, high = self.options.min_replicas, self.options.max_replicas
        wanted = min(high, max(low, self.rule(self, here)))
        if np.sign(wanted - here) != np.sign(self._wanted - here):
            self._wanted_since = self.clock.now_s
        self._wanted = wanted
        waited_s = self.clock.now_s - self._wanted_since
        if wanted > here and waited_s >= self.options.upscale_delay_s:
            self._grow(wanted - here)
        elif wanted < here and waited_s >= self.options.downscale_delay_s:
            self._shrink(min(here - wanted, len(self.active) - low))
        self.clock.at(_DECIDE_S, self._decide)

    def _grow(self, count: int) -> None:
        for _ in range(count):
            self._starting += 1
            self.clock.at(_START_S + self.device.seconds_to_load(self.family), self._started)

    def _shrink(self, count: int) -> None:
        for _ in range(count):
            gpu = min(self.active, key=lambda one: one.queued)
            self.active.remove(gpu)
            self.leaving.append(gpu)


Rule = Callable[[Fleet, int], int]


def by_work(rules: ScalingRules) -> Rule:
    """Make the service's rule."""
    return lambda fleet, _here: desired_replicas(
        Demand(fleet.busy, fleet.work_at_hand_s, fleet.num_calls), rules
    )


def by_calls(target_ongoing_requests: float) -> Rule:
    """Make the rule that Ray Serve has by itself: calls inside, per replica."""
    return lambda fleet, _here: math.ceil(fleet.num_calls / target_ongoing_requests)


def fixed(count: int) -> Rule:
    """Make the rule that never changes anything."""
    return lambda _fleet, _here: count
