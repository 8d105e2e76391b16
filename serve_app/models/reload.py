"""`Reloads`: asks all replicas of a model to reload its weights, and reports their progress.

Three verbs carry a reload, here and on the replicas: who wants other weights *requests* them, which
advances the version in the store; replicas are *notified* that there is news; each of them
*reconciles* what it serves with what the store says.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from serve_app import errors
from serve_app.background import Background
from serve_app.config import ReloadConfig
from serve_app.models.entry import Revision
from serve_app.models.protocol import Desired, ModelStore, ReplicaPhase, ReplicaReport

__all__ = ["ReloadState", "Reloads", "read_revision"]

_WATCH_S = 0.2  # between looks at the reports


@dataclass(frozen=True, slots=True)
class ReloadState:
    """How the replicas of a model stand to a version of the weights.

    phase: FAILED when any refused it, LOADING while any has not said, or none runs.
    eta_s: seconds that the load takes, from the last one that was measured; 0 unless LOADING.
    replicas: what those said that were heard of lately.
    """

    wanted: Desired
    phase: ReplicaPhase
    eta_s: float
    replicas: tuple[ReplicaReport, ...]


@dataclass(slots=True)
class _Request:
    """A reload. at: by the loop's clock.

    notified: replicas that heard; None: none could be reached yet.
    is_answered: a client knows the outcome.
    """

    wanted: Desired
    at: float
    notified: frozenset[str] | None = None
    is_answered: bool = False


_REVISION: TypeAdapter[str] = TypeAdapter(Revision)


def read_revision(value: object, *, has_revisions: bool) -> str | None:
    """Read the revision that an operator asks for; None is none.

    has_revisions: `ModelEntry.has_revisions` of the model.

    Raises:
        errors.InvalidRequest: no branch, tag or commit, or the model has none.
    """
    if value is None:
        return None
    try:
        revision = _REVISION.validate_python(value)
    except ValidationError:
        text = "The revision must be a branch, a tag or a commit."
        raise errors.InvalidRequest("revision", text) from None
    if not has_revisions:
        text = "The revision cannot be chosen: the weights of this model do not come from a hub."
        raise errors.InvalidRequest("revision", text)
    return revision


class Reloads:
    """The operator's and the clients' side of a reload.

    Args:
        store: keeps what is wanted.
        notify: has the running replicas of a model reconcile at once; returns the ids of those
            that heard. The others do so by themselves, a little later. Raises
            `errors.ModelNotRunning`.
        config: how long to wait.
    """

    def __init__(
        self,
        store: ModelStore,
        notify: Callable[[str], Awaitable[frozenset[str]]],
        config: ReloadConfig,
    ) -> None:
        self._store = store
        self._notify = notify
        self._config = config
        self._last: dict[str, _Request] = {}  # by clients, by model
        self._locks: dict[str, asyncio.Lock] = {}
        self._joining = Background()

    async def request_limited(self, model_id: str) -> ReloadState:
        """Request for a client, as often as `reload.min_interval_s` allows; else join the last one.

        Raises:
            errors.RateLimited: the last one is done, and the next one is not due yet.
            errors.JobStoreUnavailable: the store does not answer.
            errors.ModelNotRunning: nobody paints the model now.
        """
        joining = self._joining.start(self._join(model_id))
        request = await asyncio.shield(joining)  # or clients that hang up would not be counted
        state = await self._wait(request)
        request.is_answered = state.phase is not ReplicaPhase.LOADING
        return state

    async def request(self, model_id: str, revision: str | None = None) -> ReloadState:
        """Want the next version of the weights; wait for the replicas for up to `reload.hold_s`.

        Raises:
            errors.JobStoreUnavailable: the store does not answer.
            errors.ModelNotRunning: nobody paints the model now.
        """
        request = await self._record(model_id, revision)
        await self._notify_replicas(request)
        return await self._wait(request)

    async def status(self, model_id: str) -> ReloadState:
        """Return how far the replicas are towards what is wanted; raises like `request`."""
        wanted = (await self._store.desired([model_id]))[model_id]
        reports = await self._reports(model_id)
        return self._judge(wanted, frozenset(), reports)

    async def _join(self, model_id: str) -> _Request:
        """Begin a client's reload, or find the one at work; it counts before anybody hears."""
        async with self._locks.setdefault(model_id, asyncio.Lock()):
            last = self._last.get(model_id)
            due_at = last.at + self._config.min_interval_s if last is not None else 0.0
            left_s = due_at - asyncio.get_running_loop().time()
            if last is None or left_s <= 0:
                last = self._last[model_id] = await self._record(model_id)
            elif last.is_answered:
                raise errors.RateLimited(left_s)
            if last.notified is None:
                await self._notify_replicas(last)
            return last

    async def _record(self, model_id: str, revision: str | None = None) -> _Request:
        at = asyncio.get_running_loop().time()
        return _Request(await self._store.advance(model_id, revision), at)

    async def _notify_replicas(self, request: _Request) -> None:
        request.notified = await self._notify(request.wanted.model_id)

    async def _wait(self, request: _Request) -> ReloadState:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._config.hold_s
        while True:
            reports = await self._reports(request.wanted.model_id)
            state = self._judge(request.wanted, request.notified or frozenset(), reports)
            left_s = deadline - loop.time()
            if state.phase is not ReplicaPhase.LOADING or left_s <= 0:
                return state
            await asyncio.sleep(min(_WATCH_S, left_s))

    async def _reports(self, model_id: str) -> list[ReplicaReport]:
        return await self._store.reports(model_id, self._config.max_report_age_s)

    def _judge(
        self, wanted: Desired, notified: frozenset[str], reports: list[ReplicaReport]
    ) -> ReloadState:
        """Look at those that were notified, or at all that report where nobody answered in time.

        A replica that reports a newer version than this one has done with this one.
        """
        asked = notified or frozenset(report.replica_id for report in reports)
        current = [report for report in reports if report.weights_version >= wanted.weights_version]
        settled = {one.replica_id for one in current if one.phase is not ReplicaPhase.LOADING}
        if not asked or not asked <= settled:
            phase = ReplicaPhase.LOADING
        elif any(one.phase is ReplicaPhase.FAILED for one in current if one.replica_id in asked):
            phase = ReplicaPhase.FAILED
        else:
            phase = ReplicaPhase.READY
        measured_s = max((report.load_s for report in reports), default=0.0)
        eta_s = measured_s or self._config.first_eta_s
        return ReloadState(
            wanted, phase, eta_s if phase is ReplicaPhase.LOADING else 0.0, tuple(reports)
        )
