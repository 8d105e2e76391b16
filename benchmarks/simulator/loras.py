"""One model's own deployment whose calls name LoRAs: ways to paint, ways to route, memory, size."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

from benchmarks.lora_mix import services
from benchmarks.simulator.cluster import Cluster, Outcome, Router
from benchmarks.simulator.devices import LORA_SHARE, Device
from benchmarks.simulator.lora_tiers import LoraTiers
from benchmarks.simulator.routers import AddOns, FirstLora, LeastLoaded
from benchmarks.simulator.traffic import Models, Traffic
from serve_app.config import DeploymentOptions, EngineConfig

__all__ = ["TRIALS", "Deployment"]

_SEED = 1
_SERVICES = services()
_GIB = 1024**3
# Calls of 1.5 take a ninth of the time, so that a shorter run has as many.
_MORE_OFTEN = 4
_SLACK_CALLS = DeploymentOptions().add_on_slack_calls
# For LoRAs, on the device and in CPU memory; the first is the default.
_MEMORY_GIB = ((2, 2), (8, 8), (16, 64), (32, 128))
_LARGE_GIB = (16, 64)
# The median of GenTD26 for a LoRA from its store was 4.4 s.
_STORES = {"disk": Device(), "network": Device(lora_s=4.2)}
_IDLE_HOMES = partial(AddOns, 0)  # no queue at a home hides what memory does
_ROUTES: dict[str, Callable[[], Router]] = {
    "less busy of two": lambda: LeastLoaded(_SEED),
    "hash of the first LoRA": lambda: FirstLora(_SEED),
    "homes of LoRAs": lambda: AddOns(_SLACK_CALLS),
}


@dataclass(frozen=True, slots=True)
class Deployment:
    """What is simulated.

    load: share of what full devices could do. seconds: of the run; the first third fills the
    caches and is not counted. is_xl: which family. service: whose calls.
    """

    replicas: int
    load: float
    seconds: float
    route: Callable[[], Router] = _ROUTES["homes of LoRAs"]
    is_xl: bool = True
    service: str = "A"
    config: EngineConfig = field(default_factory=EngineConfig)
    device: Device = field(default_factory=Device)
    takes_turns: bool = False

    def with_memory(self, device_gib: int, host_gib: int) -> "Deployment":
        """Change what the LoRAs may take."""
        sizes = {"lora_bytes": device_gib * _GIB, "lora_host_bytes": host_gib * _GIB}
        return replace(self, config=self.config.model_copy(update=sizes))

    def run(self) -> Outcome:
        """Simulate."""
        models = Models(1, 0.0, float(self.is_xl), _SEED)
        family, device = models.family(0), self.device
        cluster = Cluster(self.replicas, models, device, self.config, quantum=1)
        for gpu in cluster.gpus:
            gpu.tiers = LoraTiers(family, device, self.config, cluster.clock.at)
            gpu.takes_turns = self.takes_turns
            gpu.hold(0, family)
        rate = self.load * self.replicas / models.work_s(0) / (1 + LORA_SHARE)
        calls = Traffic(rate, loras=_SERVICES[self.service]).calls(models, self.seconds, _SEED)
        return cluster.run(self.route(), calls, self.seconds, self.seconds / 3)


def _ways(base: Deployment) -> Iterator[tuple[str, Deployment]]:
    for name, is_xl in (("XL", True), ("1.5", False)):
        for service in _SERVICES:
            seconds = base.seconds if is_xl else base.seconds / _MORE_OFTEN
            own = replace(base, is_xl=is_xl, service=service, seconds=seconds)
            turns = replace(own, route=_ROUTES["less busy of two"], takes_turns=True)
            yield f"{name}, {service}: turns, less busy of two", turns
            for route, make in _ROUTES.items():
                yield f"{name}, {service}: rows, {route}", replace(own, route=make)


def _memory(base: Deployment) -> Iterator[tuple[str, Deployment]]:
    for store, device in _STORES.items():
        for device_gib, host_gib in _MEMORY_GIB:
            for service in _SERVICES:
                own = replace(base, service=service, device=device, route=_IDLE_HOMES)
                name = f"{store}, {device_gib} and {host_gib} GiB, {service}"
                yield name, own.with_memory(device_gib, host_gib)


def _slack(base: Deployment) -> Iterator[tuple[str, Deployment]]:
    for store, device in _STORES.items():
        for service in _SERVICES:
            for calls in (0, 1, 2, 4, 8):
                route = partial(AddOns, calls)
                own = replace(base, service=service, device=device, route=route)
                yield f"{store}, slack of {calls} calls, {service}", own.with_memory(*_LARGE_GIB)


def _replicas(base: Deployment) -> Iterator[tuple[str, Deployment]]:
    for count in (2, 4, 8, 16):
        own = replace(base, replicas=count, route=_IDLE_HOMES)
        yield f"{count} replicas", own.with_memory(*_LARGE_GIB)


TRIALS = {"ways": _ways, "memory": _memory, "slack": _slack, "replicas": _replicas}
