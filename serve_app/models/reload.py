"""`Reloads`: asks all replicas of a model to reload its weights, and reports their progress."""

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
    """How the replicas of a model stand to a generation.

    phase: FAILED when any refused it, LOADING while any has not said, or none runs.
    eta_s: seconds that the load takes, from the last one that was measured; 0 unless LOADING.
    replicas: what those said that were heard of lately.
    """

    wanted: Desired
    phase: ReplicaPhase
    eta_s: float
    replicas: tuple[ReplicaReport, ...]


@dataclass(slots=True)
class _Asked:
    """A reload. at: by the loop's clock.

    told: replicas that heard; None: nobody could be asked yet. is_answered: how it went.
    """

    wanted: Desired
    at: float
    told: frozenset[str] | None = None
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
        text = "The revision cannot be chosen, the weights of this model are not from a hub."
        raise errors.InvalidRequest("revision", text)
    return revision


class Reloads:
    """The operator's and the clients' side of a reload.

    Args:
        store: keeps what is wanted.
        tell: has the running replicas of a model look at once; gives the ids of those that heard.
            The others look by themselves, a little later. Raises `errors.ModelNotRunning`.
        config: how long to wait.
    """

    def __init__(
        self,
        store: ModelStore,
        tell: Callable[[str], Awaitable[frozenset[str]]],
        config: ReloadConfig,
    ) -> None:
        self._store = store
        self._tell = tell
        self._config = config
        self._last: dict[str, _Asked] = {}  # by clients, by model
        self._locks: dict[str, asyncio.Lock] = {}
        self._joining = Background()

    async def request(self, model_id: str) -> ReloadState:
        """Reload for a client, as often as `reload.min_interval_s` allows; else join the last one.

        Raises:
            errors.RateLimited: how the last one went was told, and the next one is not due yet.
            errors.JobStoreUnavailable: the store does not answer.
            errors.ModelNotRunning: nobody paints the model now.
        """
        joining = self._joining.start(self._join(model_id))
        asked = await asyncio.shield(joining)  # or clients that hang up would not be counted
        state = await self._wait(asked)
        asked.is_answered = state.phase is not ReplicaPhase.LOADING
        return state

    async def reload(self, model_id: str, revision: str | None = None) -> ReloadState:
        """Want the next generation; wait for the replicas for up to `reload.hold_s`.

        Raises:
            errors.JobStoreUnavailable: the store does not answer.
            errors.ModelNotRunning: nobody paints the model now.
        """
        asked = await self._want(model_id, revision)
        await self._tell_of(asked)
        return await self._wait(asked)

    async def status(self, model_id: str) -> ReloadState:
        """Return how far the replicas are towards what is wanted; raises like `reload`."""
        wanted = (await self._store.desired([model_id]))[model_id]
        reports = await self._reports(model_id)
        return self._judge(wanted, frozenset(), reports)

    async def _join(self, model_id: str) -> _Asked:
        """Begin a client's reload, or find the one at work; it counts before anybody hears."""
        async with self._locks.setdefault(model_id, asyncio.Lock()):
            last = self._last.get(model_id)
            due_at = last.at + self._config.min_interval_s if last is not None else 0.0
            left_s = due_at - asyncio.get_running_loop().time()
            if last is None or left_s <= 0:
                last = self._last[model_id] = await self._want(model_id)
            elif last.is_answered:
                raise errors.RateLimited(left_s)
            if last.told is None:
                await self._tell_of(last)
            return last

    async def _want(self, model_id: str, revision: str | None = None) -> _Asked:
        at = asyncio.get_running_loop().time()
        return _Asked(await self._store.reload(model_id, revision), at)

    async def _tell_of(self, asked: _Asked) -> None:
        asked.told = await self._tell(asked.wanted.model_id)

    async def _wait(self, asked: _Asked) -> ReloadState:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._config.hold_s
        while True:
            reports = await self._reports(asked.wanted.model_id)
            state = self._judge(asked.wanted, asked.told or frozenset(), reports)
            left_s = deadline - loop.time()
            if state.phase is not ReplicaPhase.LOADING or left_s <= 0:
                return state
            await asyncio.sleep(min(_WATCH_S, left_s))

    async def _reports(self, model_id: str) -> list[ReplicaReport]:
        return await self._store.reports(model_id, self._config.max_report_age_s)

    def _judge(
        self, wanted: Desired, told: frozenset[str], reports: list[ReplicaReport]
    ) -> ReloadState:
        """Look at those that were told, or at all that report where nobody answered in time.

        A replica that speaks of a newer generation than this one has done with this one.
        """
        asked = told or frozenset(report.replica_id for report in reports)
        about = [report for report in reports if report.generation >= wanted.generation]
        settled = {one.replica_id for one in about if one.phase is not ReplicaPhase.LOADING}
        if not asked or not asked <= settled:
            phase = ReplicaPhase.LOADING
        elif any(one.phase is ReplicaPhase.FAILED for one in about if one.replica_id in asked):
            phase = ReplicaPhase.FAILED
        else:
            phase = ReplicaPhase.READY
        measured_s = max((report.load_s for report in reports), default=0.0)
        eta_s = measured_s or self._config.first_eta_s
        return ReloadState(
            wanted, phase, eta_s if phase is ReplicaPhase.LOADING else 0.0, tuple(reports)
        )
