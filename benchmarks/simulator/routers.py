"""Routes to compare: the service's own, and what one would do without them."""

import hashlib
from collections import Counter

import numpy as np

from benchmarks.simulator.gpu import Gpu
from benchmarks.simulator.traffic import Call, Models
from serve_app.config import DeploymentOptions
from serve_app.models.placement import PlacementRules, rank, rank_by_add_ons

__all__ = ["AddOns", "FirstLora", "Hash", "LeastLoaded", "Placement"]


class Hash:
    """A model lives on the replica that its number falls on, and nowhere else."""

    def choose(self, call: Call, gpus: list[Gpu]) -> Gpu:
        """Name it."""
        return gpus[_hash(call.model) * len(gpus) >> 32]


class LeastLoaded:
    """The less loaded of two random replicas (Mitzenmacher 2001), whatever they hold."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng([seed, 3])

    def choose(self, call: Call, gpus: list[Gpu]) -> Gpu:  # noqa: ARG002  # knows no models
        """Draw two and compare."""
        return _less_loaded(gpus, self._rng)


class Placement:
    """The service's way: hot models have deployments of their own, the tail shares pools.

    A pool is one Ray cluster's, of `cell` replicas; a tail model belongs to one pool.

    load: share of a hot model's replicas that its mean traffic may fill. A model is hot when its
    traffic alone fills that share of one.
    """

    def __init__(
        self, models: Models, rate: float, gpus: list[Gpu], *, cell: int, load: float, seed: int
    ) -> None:
        self._rng = np.random.default_rng([seed, 4])
        options = DeploymentOptions(max_ongoing_requests=72)
        self._max_ongoing = options.max_ongoing_requests
        self._rules = PlacementRules(spread_calls=8, max_calls=48)
        free = list(gpus)
        self._own: dict[int, list[Gpu]] = {}
        for model, share in enumerate(models.popularity):
            count = round(float(share) * rate * models.work_s(model) / load)
            if not count:
                break  # popularity falls with the number
            self._own[model] = [free.pop() for _ in range(count)]
            for gpu in self._own[model]:
                gpu.hold(model, models.family(model))
        count = max(1, round(len(free) / cell))
        self._cells = [free[number::count] for number in range(count)]

    @property
    def num_own(self) -> Counter[str]:
        """Devices by what they are for."""
        own = sum(len(gpus) for gpus in self._own.values())
        return Counter(hot=own, tail=sum(len(cell) for cell in self._cells))

    def choose(self, call: Call, gpus: list[Gpu]) -> Gpu:  # noqa: ARG002  # shared out before
        """Ask the policy."""
        if own := self._own.get(call.model):
            return _less_loaded(own, self._rng)
        cell = self._cells[_hash(call.model) * len(self._cells) >> 32]
        views = [gpu.view(self._max_ongoing) for gpu in cell]
        best = int(rank(str(call.model), views, self._rules)[0])
        return next(gpu for gpu in cell if gpu.number == best)


class FirstLora:
    """A LoRA lives on the replica that its number falls on; the first that a call names decides."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng([seed, 3])

    def choose(self, call: Call, gpus: list[Gpu]) -> Gpu:
        """Name it; calls without LoRAs go to the less loaded of two."""
        if not call.loras:
            return _less_loaded(gpus, self._rng)
        return gpus[_hash(call.loras[0]) * len(gpus) >> 32]


class AddOns:
    """The service's way for the replicas of one model, whose calls name LoRAs.

    slack_calls: see `rank_by_add_ons`.
    """

    def __init__(self, slack_calls: int) -> None:
        self._slack_calls = slack_calls
        self._max_ongoing = DeploymentOptions().max_ongoing_requests

    def choose(self, call: Call, gpus: list[Gpu]) -> Gpu:
        """Ask the policy."""
        views = [gpu.view(self._max_ongoing) for gpu in gpus]
        names = [str(lora) for lora in call.loras]
        return gpus[int(rank_by_add_ons(names, views, self._slack_calls)[0])]


def _less_loaded(gpus: list[Gpu], rng: np.random.Generator) -> Gpu:
    first, second = (int(number) for number in rng.integers(0, len(gpus), 2))
    return min(gpus[first], gpus[second], key=lambda gpu: gpu.queued)


def _hash(model: int) -> int:
    """Spread model numbers over 32 bits; the same in every process."""
    return int.from_bytes(hashlib.blake2b(str(model).encode(), digest_size=4).digest())
