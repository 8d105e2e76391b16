"""`MemoryModelStore`: the twin of `SqlModelStore` in memory."""

import time
from collections import Counter
from collections.abc import Callable, Sequence

from serve_app.database import codec
from serve_app.models.canary import Canary, Score, Scores
from serve_app.models.entry import Entry, ModelEntry
from serve_app.models.protocol import Desired, ReplicaReport
from serve_app.models.revision import canary_id
from serve_app.testing.jobs import MemoryJobStore
from serve_app.types import Job, JobState

__all__ = ["MemoryModelStore"]


class MemoryModelStore:
    """Implements `models.protocol.ModelStore`."""

    def __init__(
        self, clock: Callable[[], float] = time.time, jobs: MemoryJobStore | None = None
    ) -> None:
        self._clock = clock
        self._jobs = jobs or MemoryJobStore(clock)
        self._entries: dict[str, Entry] = {}
        self._canaries: dict[str, Canary] = {}
        self._version = 0
        self._desired: dict[str, Desired] = {}
        self._marks: dict[str, str] = {}
        self._reports: dict[tuple[str, str], ReplicaReport] = {}
        self._turns: dict[str, tuple[str, float]] = {}  # owner and end by model

    async def entries(self) -> list[Entry]:
        """List the run-time entries; see the protocol."""
        return [self._entries[entry_id] for entry_id in sorted(self._entries)]

    async def version(self) -> int:
        """Return the number of changes; see the protocol."""
        return self._version

    async def put(self, entry: Entry) -> None:
        """Add or replace an entry; see the protocol."""
        self._entries[entry.id] = codec.load_entry(codec.dump_entry(entry))
        if (wanted := self._desired.get(entry.id)) is not None:
            self._desired[entry.id] = wanted.model_copy(update={"revision": None})
        self._version += 1

    async def remove(self, entry_id: str) -> bool:
        """Remove an entry; see the protocol."""
        removed = self._entries.pop(codec.check_text("id", entry_id), None)
        self._version += removed is not None
        if removed is not None:
            self._leave(entry_id)
        return removed is not None

    async def canaries(self) -> list[Canary]:
        """List the canaries; see the protocol."""
        return [self._canaries[model_id] for model_id in sorted(self._canaries)]

    async def begin_canary(self, entry: ModelEntry, share: float) -> None:
        """Send a share of a model's calls to another revision; see the protocol."""
        self._leave(entry.id)
        self._canaries[entry.id] = Canary(entry=entry, share=share, since=self._clock())
        self._version += 1

    async def share_canary(self, model_id: str, share: float) -> bool:
        """Change the share of a canary; see the protocol."""
        canary = self._canaries.get(codec.check_text("model_id", model_id))
        if canary is None:
            return False
        self._canaries[model_id] = canary.model_copy(update={"share": share})
        self._version += 1
        return True

    async def promote_canary(self, model_id: str) -> bool:
        """Put a canary in place of the run-time entry; see the protocol."""
        canary = self._leave(codec.check_text("model_id", model_id))
        if canary is None:
            return False
        await self.put(canary.entry)
        return True

    async def end_canary(self, model_id: str) -> bool:
        """Remove a canary; see the protocol."""
        is_ended = self._leave(codec.check_text("model_id", model_id)) is not None
        self._version += is_ended
        return is_ended

    async def scores(self, model_id: str, since: float) -> Scores:
        """Compare a model with its canary; see the protocol."""
        asked = {model_id, canary_id(codec.check_text("model_id", model_id))}
        ended: dict[str, list[Job]] = {name: [] for name in asked}
        for job in self._jobs.ended_since(since):
            if job.request.spec.model_id in asked:
                ended[job.request.spec.model_id].append(job)
        return Scores(model=_score(ended[model_id]), canary=_score(ended[canary_id(model_id)]))

    def _leave(self, model_id: str) -> Canary | None:
        self._jobs.leave_canary(model_id)
        return self._canaries.pop(model_id, None)

    async def desired(self, model_ids: Sequence[str]) -> dict[str, Desired]:
        """Return what models should serve; see the protocol."""
        ids = [codec.check_text("model_id", model_id) for model_id in model_ids]
        return {
            model_id: self._desired.get(model_id, Desired(model_id=model_id)) for model_id in ids
        }

    async def advance(
        self, model_id: str, revision: str | None = None, mark: str | None = None
    ) -> Desired:
        """Want the next version of the weights; see the protocol."""
        before = (await self.desired([model_id]))[model_id]
        if mark is not None:
            if self._marks.get(model_id) == mark:
                return before
            self._marks[model_id] = mark
        if revision is not None:
            codec.check_text("revision", revision)
        self._desired[model_id] = Desired(
            model_id=model_id,
            weights_version=before.weights_version + 1,
            revision=before.revision if revision is None else revision,
        )
        return self._desired[model_id]

    async def report(self, report: ReplicaReport) -> None:
        """Keep what a replica says; see the protocol."""
        codec.check_text("model_id", report.model_id)
        codec.check_text("replica_id", report.replica_id)
        now = report.model_copy(update={"reported_at": self._clock()})
        self._reports[report.model_id, report.replica_id] = now

    async def reports(self, model_id: str, max_age_s: float) -> list[ReplicaReport]:
        """List what the replicas of a model said; see the protocol."""
        codec.check_text("model_id", model_id)
        oldest = self._clock() - max_age_s
        return [
            report
            for (reported_id, _), report in sorted(self._reports.items())
            if reported_id == model_id and report.reported_at >= oldest
        ]

    async def take_turn(self, model_id: str, owner: str, lease_s: float) -> bool:
        """Take or renew the turn; see the protocol."""
        codec.check_text("model_id", model_id)
        codec.check_text("owner", owner)
        holder, until = self._turns.get(model_id, (owner, 0.0))
        if holder != owner and until > self._clock():
            return False
        self._turns[model_id] = (owner, self._clock() + lease_s)
        return True

    async def end_turn(self, model_id: str, owner: str) -> None:
        """Release the turn; see the protocol."""
        codec.check_text("owner", owner)
        if self._turns.get(codec.check_text("model_id", model_id), ("", 0.0))[0] == owner:
            del self._turns[model_id]


def _score(ended: list[Job]) -> Score:
    states = Counter(job.state for job in ended)
    done = [job for job in ended if job.state is JobState.SUCCESS]
    run_s = [(job.finished_at or 0.0) - (job.started_at or 0.0) for job in done]
    return Score(
        succeeded=states[JobState.SUCCESS],
        failed=states[JobState.FAILED],
        cancelled=states[JobState.CANCELLED],
        run_s=sum(run_s) / len(run_s) if run_s else None,
    )
