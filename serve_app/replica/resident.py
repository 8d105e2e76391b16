"""`Resident`: one model on this replica, whose weights can be exchanged while it paints.

The store says which weights are wanted; `reconcile` makes what serves equal to that and reports. It
is called at the start, by a slow round (`run`), by whoever knows of news (`notify`) and by a deploy
(`request`). Bad weights leave the old ones serving.
"""

import asyncio
import dataclasses
import random
import time
import traceback
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from serve_app import errors
from serve_app.background import Background
from serve_app.config import ReloadConfig
from serve_app.engine.metrics import EngineSnapshot
from serve_app.fairness import PLAIN, Stake
from serve_app.models.protocol import Desired, ReplicaPhase
from serve_app.replica.slot import Served, Slot
from serve_app.replica.status import ReplicaStatus
from serve_app.replica.weights import Found, Held, Weights
from serve_app.types import GenerationSpec, Pictures, PreparedImages, Sight

__all__ = ["Resident", "ResidentState"]

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ResidentState:
    """What the metrics tell. weights_version: -1 while nothing serves. load_s: of what serves."""

    weights_version: int
    load_s: float
    reload_failures: int


@dataclass(frozen=True, slots=True)
class _DeployRequest:
    """What a deploy said that the store does not know yet."""

    user_config: object


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Weights that could not be served; tried again after `until`, by the monotonic clock."""

    desired: Desired
    until: float
    reason: str


class _Superseded(Exception):
    """Other weights are wanted by now."""


class Resident:
    """An `pipelines.protocol.Painter`; every job is painted by one version of the weights.

    Args:
        model_id: the model that it is.
        replica_status: tells what is wanted, and hears what came of it.
        weights: where they come from.
        config: how.
    """

    def __init__(
        self, model_id: str, replica_status: ReplicaStatus, weights: Weights, config: ReloadConfig
    ) -> None:
        self._model_id = model_id
        self._replica_status = replica_status
        self._weights = weights
        self._config = config
        self._slot = Slot(weights.tidy)
        self._failures = 0
        self._refusal: _Refusal | None = None
        self._unsent: _DeployRequest | None = None
        self._one_at_a_time = asyncio.Lock()
        self._tasks = Background()

    async def start(self) -> None:
        """Load what is wanted, or else the last weights that served, if they can still be had.

        Raises:
            errors.ReloadFailed: neither can be loaded.
            errors.JobStoreUnavailable: the store does not say what is wanted.
        """
        async with self._one_at_a_time:
            desired = await self._replica_status.desired()
            await self._reconcile_with(desired)
            if self._refusal is not None:
                await self._fall_back(self._refusal)

    async def run(self) -> None:
        """Follow the store for ever; a task of its own."""
        while True:
            await asyncio.sleep(self._config.poll_s * random.uniform(0.8, 1.2))
            await self.reconcile()

    def notify(self) -> None:
        """Schedule `reconcile` to run soon; returns at once."""
        self._begin()

    def request(self, user_config: object) -> None:
        """Request what a deploy says, and reconcile; returns at once, never raises."""
        self._unsent = _DeployRequest(user_config)
        self._begin()

    async def reconcile(self) -> None:
        """Make what serves equal to what is wanted, and report. Never raises.

        Goes on when the caller is cancelled. One runs at a time; callers that come meanwhile wait
        and then look anew.
        """
        await asyncio.shield(self._begin())

    async def paint(
        self, job_id: int, spec: GenerationSpec, images: PreparedImages | None, stake: Stake = PLAIN
    ) -> Pictures:
        """Paint all samples of a job with the weights that serve when it begins."""
        async with self._slot.use() as served:
            weights_version = served.desired.weights_version
            pictures = await served.painter.paint(job_id, spec, images, stake)
        if weights_version == 0:
            return pictures
        return dataclasses.replace(pictures, ran={**pictures.ran, "generation": weights_version})

    def prefetch(self, spec: GenerationSpec) -> None:
        """Begin to load the add-ons that a job names; see the painter's protocol."""
        served = self._slot.current
        if served is not None:
            served.painter.prefetch(spec)

    def progress(self) -> dict[int, float]:
        """Share of the steps done by job; see the protocol."""
        merged: dict[int, float] = {}
        for served in self._slot.held():
            merged |= served.painter.progress()
        return merged

    def look(self, watched: Mapping[int, int | None]) -> dict[int, Sight]:
        """How far watched jobs are; see the protocol."""
        sights = [served.painter.look(watched) for served in self._slot.held()]
        return dict(ChainMap(*sights))

    def snapshot(self) -> EngineSnapshot:
        """Count what all versions of the weights did; see the protocol."""
        return self._slot.snapshot()

    def state(self) -> ResidentState:
        """Return what serves and how reloads went."""
        served = self._slot.current
        return ResidentState(
            weights_version=-1 if served is None else served.desired.weights_version,
            load_s=0.0 if served is None else served.load_s,
            reload_failures=self._failures,
        )

    def weight_bytes(self) -> int:
        """Memory of all versions of the weights that are held; see the protocol."""
        return sum(served.painter.weight_bytes() for served in self._slot.held())

    def check_health(self) -> None:
        """Raise RuntimeError when nothing serves or is being loaded, or an engine is ill."""
        if self._slot.current is None and not self._one_at_a_time.locked():
            raise RuntimeError(f"no weights of {self._model_id} serve")
        for served in self._slot.held():
            served.painter.check_health()

    def close(self) -> None:
        """Stop painting; see the protocol."""
        self._slot.close()

    def _begin(self) -> "asyncio.Task[None]":
        return self._tasks.start(self._reconcile())

    async def _reconcile(self) -> None:
        try:
            async with self._one_at_a_time:
                if self._unsent is not None:
                    await self._request(self._unsent)
                while not self._is_settled(desired := await self._replica_status.desired()):
                    await self._reconcile_with(desired)
                await self._replica_status.repeat()
        except errors.JobStoreUnavailable as exc:
            _log.warning("wanted_weights_unknown", model_id=self._model_id, reason=str(exc))
        except Exception:  # a bug here must not cost a replica that serves
            _log.exception("reconcile_broke", model_id=self._model_id)

    async def _request(self, request: _DeployRequest) -> None:
        """Record a wish in the store; one that makes no sense is refused like bad weights.

        Raises:
            errors.JobStoreUnavailable: the store does not answer; the next round tries again.
        """
        try:
            await self._replica_status.request(request.user_config)
        except errors.InvalidRequest as exc:
            await self._refuse(await self._replica_status.desired(), f"user_config: {exc.detail}")
        if self._unsent is request:
            self._unsent = None

    def _is_settled(self, desired: Desired) -> bool:
        current, refusal = self._slot.current, self._refusal
        if self._slot.is_closed or (current is not None and current.desired == desired):
            return True
        return (
            refusal is not None and refusal.desired == desired and time.monotonic() < refusal.until
        )

    async def _reconcile_with(self, desired: Desired) -> None:
        """Serve these weights, or keep the old ones and say why.

        Raises:
            errors.JobStoreUnavailable: the turn of this replica cannot be had.
        """
        await self._replica_status.say(desired, ReplicaPhase.LOADING, self._slot.current)
        try:
            found = await asyncio.to_thread(self._weights.find, desired)
            current = self._slot.current
            if current is not None and current.digest == found.digest:
                current.desired = desired  # the same files as before
            else:
                await self._exchange(found)
        except errors.JobStoreUnavailable:
            raise
        except _Superseded:
            return
        except Exception as exc:  # files can make a loader raise anything
            await self._refuse(desired, f"{type(exc).__name__}: {exc}")
            return
        self._refusal = None
        _log.info("weights_serve", model_id=self._model_id, weights_version=desired.weights_version)
        await self._replica_status.say(desired, ReplicaPhase.READY, self._slot.current)

    async def _refuse(self, desired: Desired, reason: str) -> None:
        self._failures += 1
        until = time.monotonic() + self._config.retry_s
        self._refusal = _Refusal(desired, until, reason)
        _log.error(
            "weights_refused",
            model_id=self._model_id,
            weights_version=desired.weights_version,
            reason=reason,
        )
        await self._replica_status.say(desired, ReplicaPhase.FAILED, self._slot.current, reason)

    async def _exchange(self, found: Found) -> None:
        if self._config.mode == "beside" or self._slot.current is None:
            try:
                self._slot.put(await self._load(found))
            except errors.OutOfMemory:
                if self._slot.current is None:
                    raise
                _log.warning("no_room_beside", model_id=self._model_id)
            else:
                return
        await self._exchange_alone(found)

    async def _exchange_alone(self, found: Found) -> None:
        """Unload before loading, while no other replica of the model does."""
        await asyncio.to_thread(found.check)
        async with self._replica_status.turn():
            if await self._replica_status.desired() != found.desired:
                raise _Superseded
            before = self._held()
            await self._slot.empty()
            try:
                self._slot.put(await self._load(found))
            except Exception:
                await self._restore(before)
                raise

    def _held(self) -> Held:
        """Name what serves, without a reference that would keep it in memory."""
        assert self._slot.current is not None, "a slot with nothing in it needs no unloading"
        return Held(self._slot.current.desired, self._slot.current.digest)

    async def _restore(self, before: Held) -> None:
        """Load weights that served before, if their files are still what they were."""
        try:
            found = await asyncio.to_thread(self._weights.find, before.desired)
            if found.digest != before.digest:
                raise errors.ReloadFailed(self._model_id, "the files of the old weights changed")
            self._slot.put(await self._load(found))
        except Exception:  # nothing serves: the health check tells it
            _log.exception("weights_lost", model_id=self._model_id)

    async def _load(self, found: Found) -> Served:
        began = time.monotonic()
        try:
            painter = await asyncio.to_thread(found.load)
        except Exception as exc:
            _forget_frames(exc)
            await asyncio.to_thread(self._weights.tidy)
            raise
        return Served(painter, found.desired, found.digest, time.monotonic() - began)

    async def _fall_back(self, refusal: _Refusal) -> None:
        """Serve the newest weights that replicas of the model served before.

        Raises:
            errors.ReloadFailed: there are none, or they cannot be had.
        """
        for found in await self._replica_status.good():
            if found.desired != refusal.desired:
                await self._restore(found)
            if self._slot.current is not None:
                await self._replica_status.say(
                    refusal.desired, ReplicaPhase.FAILED, self._slot.current, refusal.reason
                )
                return
        raise errors.ReloadFailed(self._model_id, refusal.reason)


def _forget_frames(error: BaseException) -> None:
    """Drop the local variables behind an error: they refer to half-loaded weights."""
    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen = seen.__cause__ or seen.__context__
