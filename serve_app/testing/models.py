"""`MemoryModelStore`: the twin of `SqlModelStore` in memory."""

import time
from collections.abc import Callable, Sequence

from serve_app.database import codec
from serve_app.models.entry import Entry
from serve_app.models.protocol import Desired, ReplicaReport

__all__ = ["MemoryModelStore"]


class MemoryModelStore:
    """Implements `models.protocol.ModelStore`."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._entries: dict[str, Entry] = {}
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
        self._version += 1

    async def remove(self, entry_id: str) -> bool:
        """Remove an entry; see the protocol."""
        removed = self._entries.pop(codec.check_text("id", entry_id), None)
        self._version += removed is not None
        return removed is not None

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
