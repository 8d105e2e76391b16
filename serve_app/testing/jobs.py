"""Twins of the SQL stores that keep everything in memory, for tests and short-lived services.

They pass the same contract suites. A clock is handed in, so that leases can run out without
waiting. All methods run without a break on the event loop, which makes each one atomic.
"""

import itertools
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from serve_app import errors
from serve_app.database import codec
from serve_app.database.outbox import new_message_id
from serve_app.fairness import line_place
from serve_app.jobs.line import Line
from serve_app.jobs.number import FIRST, derived, id_of, new_key
from serve_app.jobs.protocol import Idempotency, Lease
from serve_app.jobs.rules import KeyRules, KeyUse, placed
from serve_app.models.revision import asked_id, is_canary
from serve_app.testing.keys import MemoryKeyStore
from serve_app.testing.usage import MemoryUsageStore
from serve_app.types import Job, JobFailure, JobRequest, JobResult, JobState
from serve_app.webhooks.protocol import Backlog, DeliveryState, Message

__all__ = ["Clock", "MemoryJobStore", "MemoryKeyStore", "MemoryOutbox"]

Clock = Callable[[], float]
"""Seconds since the epoch."""

_LATEST = 1000


@dataclass(slots=True)
class _Lease:
    """Who holds a row until when; `due` is when a free one may be taken."""

    due: float
    owner: str | None = None
    until: float = math.inf

    def is_free(self, now: float) -> bool:
        return self.due <= now if self.owner is None else self.until <= now


@dataclass(slots=True)
class _Row:
    job: Job
    lease: _Lease
    idempotency: Idempotency | None = None

    def change(self, **values: object) -> None:
        self.job = self.job.model_copy(update=values)


class MemoryJobStore:
    """Implements `jobs.protocol.JobStore`; messages are in `outbox`, what jobs cost in `costs`."""

    def __init__(self, clock: Clock = time.time, keys: MemoryKeyStore | None = None) -> None:
        self._keys = keys or MemoryKeyStore(clock)
        self.outbox = MemoryOutbox(clock, self._keys)
        self.costs = MemoryUsageStore(clock)
        self._clock = clock
        self._rows: dict[int, _Row] = {}
        self._numbers = itertools.count(FIRST)
        self._key = new_key()

    async def admit(
        self,
        key_id: str,
        max_open: int,
        rules: KeyRules | None = None,
        idempotency: Idempotency | None = None,
        samples: int = 1,
        *,
        guests: int = 0,
    ) -> Job | None:
        """Look what `add` would say; see the protocol."""
        repeated = idempotency and self._find_repeated(key_id, idempotency)
        if repeated:
            return repeated
        owners = Counter(job.request.key_id for job in self._open())
        room = max_open if owners[key_id] else max_open + guests
        if owners.total() >= room:
            raise errors.Overloaded()
        if rules is not None:
            rules = self._keys.rules_of(key_id).over(rules)
            rules.check_use(self._use(key_id, rules.requests_per_minute), samples)
        return None

    async def add(
        self,
        request: JobRequest,
        max_open: int,
        rules: KeyRules | None = None,
        idempotency: Idempotency | None = None,
        lease: Lease | None = None,
        *,
        guests: int = 0,
    ) -> Job:
        """Accept a job; see the protocol."""
        key_id = codec.check_request(request).key_id
        samples = request.spec.samples
        repeated = await self.admit(key_id, max_open, rules, idempotency, samples, guests=guests)
        if repeated:
            return repeated
        own = KeyRules() if rules is None else self._keys.rules_of(key_id).over(rules)
        if rules is not None:
            own.check_request(request)
            request = placed(request, own)
        number, stored = next(self._numbers), codec.load(JobRequest, codec.dump(request))
        job = Job(
            id=id_of(number, self._key, FIRST),
            state=JobState.QUEUED,
            request=codec.with_columns(
                stored,
                priority=request.priority,
                traceparent=request.traceparent,
                is_canary=is_canary(request.spec.model_id),
            ),
            created_at=self._clock(),
            weight=own.weight or 1.0,
            number=number,
        )
        row = self._rows[job.id] = _Row(job, _Lease(due=job.created_at), idempotency)
        if lease is not None:
            self._take(row, lease.owner, lease.seconds)
        return row.job

    async def get(self, job_id: int) -> Job | None:
        """Read a job; see the protocol."""
        row = self._rows.get(job_id)
        return row.job if row else None

    async def ended(self, job_ids: Collection[int]) -> set[int]:
        """Return which are no longer open; see the protocol."""
        found = ((job_id, self._rows.get(job_id)) for job_id in job_ids)
        return {job_id for job_id, row in found if row is None or row.job.state.is_final}

    async def claim(self, owner: str, lease_s: float, limit: int) -> list[Job]:
        """Take leases on due jobs; see the protocol."""
        now = self._clock()
        due = [job for job in self._open() if self._rows[job.id].lease.is_free(now)]
        at_work = [job for job in self._open() if job.state is JobState.PROCESSING]
        begun = [job for job in at_work if not self._rows[job.id].lease.is_free(now)]
        taken = [self._rows[job_id] for job_id in _line(due, begun).job_ids[:limit]]
        taken.sort(key=lambda row: row.job.number)
        for row in taken:
            self._take(row, owner, lease_s)
        return [row.job for row in taken]

    async def renew(self, owner: str, lease_s: float, progress: dict[int, float]) -> set[int]:
        """Extend leases; see the protocol."""
        held = {job_id: row for job_id in progress if (row := self._held(owner, job_id))}
        for job_id, row in held.items():
            row.lease.until = self._clock() + lease_s
            row.change(progress=codec.share(progress[job_id]))
        return set(held)

    async def release(
        self, owner: str, job_ids: Sequence[int], delay_s: float = 0.0, *, refund: bool = False
    ) -> None:
        """Return jobs to the queue; see the protocol."""
        for row in [row for job_id in job_ids if (row := self._held(owner, job_id))]:
            row.lease = _Lease(due=self._clock() + delay_s)
            attempts = row.job.attempts - int(refund)
            row.change(state=JobState.QUEUED, progress=0.0, attempts=attempts)

    async def succeed(
        self, owner: str, job_id: int, result: JobResult, webhook_body: str | None = None
    ) -> bool:
        """Settle a held job; see the protocol."""
        row = self._held(owner, job_id)
        values = {"state": JobState.SUCCESS, "result": result, "progress": 1.0}
        return self._settle(row, values, webhook_body)

    async def fail(
        self, owner: str, job_id: int, failure: JobFailure, webhook_body: str | None = None
    ) -> bool:
        """Settle a held job; see the protocol."""
        row = self._held(owner, job_id)
        return self._settle(row, {"state": JobState.FAILED, "failure": failure}, webhook_body)

    async def cancel(self, job_id: int, webhook_body: str | None = None) -> bool:
        """Settle an open job as cancelled; see the protocol."""
        row = self._rows.get(job_id)
        is_open = row is not None and not row.job.state.is_final
        values: dict[str, object] = {"state": JobState.CANCELLED}
        return self._settle(row if is_open else None, values, webhook_body)

    async def count_open(self) -> dict[str, int]:
        """Count open jobs per model; see the protocol."""
        return dict(Counter(asked_id(job.request.spec.model_id) for job in self._open()))

    async def waiting(self, model_id: str) -> Line:
        """Return the jobs of a model that have not begun; see the protocol."""
        mine = [job for job in self._open() if asked_id(job.request.spec.model_id) == model_id]
        return _line(
            [job for job in mine if not job.progress], [job for job in mine if job.progress]
        )

    async def turns(self) -> Line:
        """Return what is at work and who is next; see the protocol."""
        begun = [job for job in self._open() if job.state is JobState.PROCESSING]
        return _line([job for job in self._open() if job.state is JobState.QUEUED], begun)

    async def secret(self, purpose: str) -> bytes:
        """Derive a secret from the key of this store; see the protocol."""
        return derived(self._key, purpose)

    async def oldest_open_s(self) -> float:
        """Return the age of the oldest open job; see the protocol."""
        now = self._clock()
        return now - min((job.created_at for job in self._open()), default=now)

    async def last_failed(self, limit: int) -> list[Job]:
        """Return jobs that failed; see the protocol."""
        ended = [row.job for row in self._rows.values() if row.job.finished_at is not None]
        ended.sort(key=lambda job: job.finished_at or 0.0, reverse=True)
        return [job for job in ended[:_LATEST] if job.state is JobState.FAILED][:limit]

    async def expire(self, older_than_s: float, limit: int = 1000) -> list[Job]:
        """Remove old final jobs; see the protocol."""
        end = self._clock() - older_than_s
        finished = [(row.job.finished_at, id_) for id_, row in self._rows.items()]
        old = sorted((at, job_id) for at, job_id in finished if at is not None and at < end)
        return [self._rows.pop(job_id).job for _, job_id in old[:limit]]

    async def close(self) -> None:
        """Keep everything, so that a test can look."""

    def _open(self) -> list[Job]:
        return [row.job for row in self._rows.values() if not row.job.state.is_final]

    def leave_canary(self, model_id: str) -> None:
        """Send the open jobs of a model's canary to the model."""
        for row in self._rows.values():
            spec = row.job.request.spec
            if not row.job.state.is_final and asked_id(spec.model_id) == model_id:
                own = spec.model_copy(update={"model_id": model_id})
                row.change(request=row.job.request.model_copy(update={"spec": own}))

    def ended_since(self, since: float) -> list[Job]:
        """Return the jobs that were accepted since a time and have ended."""
        jobs = [row.job for row in self._rows.values()]
        return [job for job in jobs if job.created_at >= since and job.state.is_final]

    def _use(self, key_id: str, per_minute: int | None) -> KeyUse:
        mine = [row.job for row in self._rows.values() if row.job.request.key_id == key_id]
        still_open = [job for job in mine if not job.state.is_final]
        ages = sorted(self._clock() - job.created_at for job in mine)
        return KeyUse(
            len(still_open),
            self.costs.pictures(key_id) + sum(job.request.spec.samples for job in still_open),
            ages[per_minute - 1] if per_minute and len(ages) >= per_minute else None,
        )

    def _find_repeated(self, key_id: str, idempotency: Idempotency) -> Job | None:
        oldest = self._clock() - idempotency.ttl_s
        for row in self._rows.values():
            known = row.idempotency
            is_mine = row.job.request.key_id == key_id and row.job.created_at > oldest
            if known and known.key == idempotency.key and is_mine:
                idempotency.check(known.digest)
                return row.job
        return None

    def _take(self, row: _Row, owner: str, lease_s: float) -> None:
        now = self._clock()
        row.lease = _Lease(row.lease.due, owner, now + lease_s)
        row.change(
            state=JobState.PROCESSING,
            attempts=row.job.attempts + 1,
            progress=0.0,
            started_at=now if row.job.started_at is None else row.job.started_at,
        )

    def _held(self, owner: str, job_id: int) -> _Row | None:
        row = self._rows.get(job_id)
        return row if row and row.lease.owner == owner and not row.job.state.is_final else None

    def _settle(
        self, row: _Row | None, values: dict[str, object], webhook_body: str | None
    ) -> bool:
        if row is None:
            return False
        row.change(finished_at=self._clock(), **values)
        self.costs.add(row.job)
        request = row.job.request
        if webhook_body is not None and request.webhook is not None:
            self.outbox.insert(
                row.job.id, request.key_id, request.webhook, webhook_body, request.traceparent
            )
        return True


def _line(waiting: Iterable[Job], begun: Iterable[Job]) -> Line:
    """Put jobs into the order of `fairness.turn`."""
    line = Line(begun=Counter(job.stake.owner for job in begun))
    for job in sorted(waiting, key=lambda job: (line_place(job.number, job.stake), job.number)):
        line.join(job)
    return line


@dataclass(slots=True)
class _Letter:
    message: Message
    lease: _Lease
    key_id: str
    state: DeliveryState = DeliveryState.PENDING
    finished_at: float | None = None


class MemoryOutbox:
    """Implements `webhooks.protocol.Outbox`."""

    def __init__(self, clock: Clock = time.time, keys: MemoryKeyStore | None = None) -> None:
        self._clock = clock
        self._keys = keys or MemoryKeyStore(clock)
        self._letters: dict[str, _Letter] = {}

    def insert(self, job_id: int, key_id: str, url: str, body: str, traceparent: str = "") -> None:
        """Leave a message, due at once."""
        now = self._clock()
        body = codec.escape(body)
        message = Message(new_message_id(), job_id, url, body, attempts=0, traceparent=traceparent)
        self._letters[message.id] = _Letter(message, _Lease(due=now), key_id)

    async def claim(self, owner: str, lease_s: float, limit: int) -> list[Message]:
        """Take leases on due messages; see the protocol."""
        now = self._clock()
        due = [
            letter
            for letter in self._letters.values()
            if letter.finished_at is None and letter.lease.is_free(now)
        ]
        due.sort(key=lambda letter: (letter.lease.due, letter.message.id))
        for letter in due[:limit]:
            letter.lease = _Lease(letter.lease.due, owner, now + lease_s)
        secrets = self._keys.webhook_secrets
        return [
            replace(letter.message, secret=secrets.get(letter.key_id)) for letter in due[:limit]
        ]

    async def reschedule(self, owner: str, message_id: str, delay_s: float) -> bool:
        """Try again later; see the protocol."""
        letter = self._count_attempt(owner, message_id)
        if letter is not None:
            letter.lease = _Lease(due=self._clock() + delay_s)
        return letter is not None

    async def settle(self, owner: str, message_id: str, state: DeliveryState) -> bool:
        """Make a message final; see the protocol."""
        assert state is not DeliveryState.PENDING, "pending is no final state"
        letter = self._count_attempt(owner, message_id)
        if letter is not None:
            letter.state, letter.finished_at = state, self._clock()
        return letter is not None

    async def state_of(self, job_id: int) -> DeliveryState | None:
        """Return the delivery state of a job's webhook; see the protocol."""
        states = [row.state for row in self._letters.values() if row.message.job_id == job_id]
        return states[-1] if states else None  # a job that was tried again is told of again

    async def backlog(self) -> Backlog:
        """Count messages; see the protocol."""
        now = self._clock()
        leases = [row.lease for row in self._letters.values() if row.finished_at is None]
        oldest = min((lease.due for lease in leases if lease.is_free(now)), default=now)
        return Backlog(len(leases), now - oldest)

    async def expire(self, older_than_s: float, limit: int = 1000) -> int:
        """Remove old final messages; see the protocol."""
        end = self._clock() - older_than_s
        finished = [(row.finished_at, id_) for id_, row in self._letters.items()]
        old = sorted((at, id_) for at, id_ in finished if at is not None and at < end)[:limit]
        for _, message_id in old:
            del self._letters[message_id]
        return len(old)

    def _count_attempt(self, owner: str, message_id: str) -> _Letter | None:
        """Add an attempt to a message that this sender holds."""
        letter = self._letters.get(message_id)
        if letter is None or letter.finished_at is not None or letter.lease.owner != owner:
            return None
        letter.message = replace(letter.message, attempts=letter.message.attempts + 1)
        return letter
