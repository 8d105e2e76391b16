"""`ReplicaStatus`: one replica's side of the `ModelStore`: what it wants, reports and awaits."""

import asyncio
import contextlib
import hashlib
import json
import time
from collections.abc import AsyncIterator

import structlog

from serve_app import errors
from serve_app.config import ReloadConfig
from serve_app.models.protocol import Desired, ModelStore, ReplicaPhase, ReplicaReport
from serve_app.models.reload import read_revision
from serve_app.replica.slot import Served
from serve_app.replica.weights import Held

__all__ = ["ReplicaStatus"]

_log = structlog.get_logger()
_MAX_REASON = 500  # characters
_EVER_S = 1e9  # thirty years


class ReplicaStatus:
    """Speaks for one model on one replica.

    has_revisions: whether a deploy may choose one of the model's.
    """

    def __init__(
        self,
        model_id: str,
        replica_id: str,
        store: ModelStore,
        config: ReloadConfig,
        *,
        has_revisions: bool = True,
    ) -> None:
        self._model_id = model_id
        self._has_revisions = has_revisions
        self._replica_id = replica_id
        self._store = store
        self._config = config
        self._last: ReplicaReport | None = None
        self._repeat_at = 0.0

    async def desired(self) -> Desired:
        """Ask what should serve; raises `errors.JobStoreUnavailable`."""
        return (await self._store.desired([self._model_id]))[self._model_id]

    async def request(self, user_config: object) -> None:
        """Request what a deploy says, once for all replicas that hear of it.

        Raises:
            errors.InvalidRequest: its `revision` is none, or the model has none.
            errors.JobStoreUnavailable: the store does not answer.
        """
        asked = user_config.get("revision") if isinstance(user_config, dict) else None
        text = json.dumps(user_config, sort_keys=True, default=str)
        mark = hashlib.sha256(text.encode()).hexdigest()
        revision = read_revision(asked, has_revisions=self._has_revisions)
        await self._store.advance(self._model_id, revision, mark)

    async def say(
        self, wanted: Desired, phase: ReplicaPhase, served: Served | None, reason: str = ""
    ) -> None:
        """Report; what the store does not take is said again later."""
        self._last = ReplicaReport(
            model_id=self._model_id,
            replica_id=self._replica_id,
            weights_version=wanted.weights_version,
            phase=phase,
            serving=None if served is None else served.desired.weights_version,
            revision=None if served is None else served.desired.revision,
            digest="" if served is None else served.digest,
            load_s=0.0 if served is None else served.load_s,
            reason=reason[:_MAX_REASON],
        )
        await self._send()

    async def repeat(self) -> None:
        """Repeat the last report when it is old, so that others know that the replica is alive."""
        if time.monotonic() >= self._repeat_at:
            await self._send()

    async def good(self) -> list[Held]:
        """List what replicas of the model served last, newest first; also of those that are gone.

        Raises:
            errors.JobStoreUnavailable: the store does not answer.
        """
        found = {
            Held(
                Desired(
                    model_id=self._model_id,
                    weights_version=report.serving,
                    revision=report.revision,
                ),
                report.digest,
            )
            for report in await self._store.reports(self._model_id, _EVER_S)
            if report.serving is not None
        }
        return sorted(found, key=lambda one: one.desired.weights_version, reverse=True)

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until no other replica of the model reloads, and keep them from it.

        Raises:
            errors.JobStoreUnavailable: the store does not answer.
        """
        lease_s = self._config.turn_lease_s
        while not await self._store.take_turn(  # noqa: ASYNC110  # another process ends it
            self._model_id, self._replica_id, lease_s
        ):
            await asyncio.sleep(min(self._config.poll_s, lease_s))
        renewing = asyncio.create_task(self._renew_turn())
        try:
            yield
        finally:
            renewing.cancel()
            with contextlib.suppress(errors.JobStoreUnavailable):  # then the lease runs out
                await self._store.end_turn(self._model_id, self._replica_id)

    async def _renew_turn(self) -> None:
        lease_s = self._config.turn_lease_s
        while True:
            await asyncio.sleep(lease_s / 3)
            with contextlib.suppress(errors.JobStoreUnavailable):
                await self._store.take_turn(self._model_id, self._replica_id, lease_s)

    async def _send(self) -> None:
        if self._last is None:
            return
        try:
            await self._store.report(self._last)
        except errors.JobStoreUnavailable as exc:
            _log.warning("report_not_sent", model_id=self._model_id, reason=str(exc))
            self._repeat_at = 0.0
        else:
            self._repeat_at = time.monotonic() + self._config.report_s
