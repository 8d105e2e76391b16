"""`SqlJobStore`: jobs in SQLite or PostgreSQL. It owns the connections of its process.

Each method is one short transaction, so that nothing is locked while Python thinks. A job is taken
by one UPDATE: PostgreSQL skips the rows that another claim has locked, SQLite has one writer at a
time.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import structlog
from sqlalchemy import Connection, Row, Update, case, delete, func, select, update

from serve_app import errors
from serve_app.config import DatabaseConfig
from serve_app.database import admission, codec, statements, usage
from serve_app.database.connection import Database, Now
from serve_app.database.outbox import insert_message
from serve_app.database.schema import job_numbers, jobs
from serve_app.database.transaction import SqlStore, reads, writes
from serve_app.failure import to_failure
from serve_app.jobs.line import Line, Turn
from serve_app.jobs.number import MAX_ID, derived, id_of
from serve_app.jobs.protocol import Idempotency, Lease
from serve_app.jobs.rules import KeyRules, placed
from serve_app.models.revision import asked_id, is_canary
from serve_app.types import Job, JobFailure, JobRequest, JobResult, JobState

__all__ = ["SqlJobStore"]

_log = structlog.get_logger()

_ADD_LOCK = 0x6472_6561_6D01  # "dream" 01; any number that only this use has
_LATEST = 1000  # that ended, among which failed ones are looked for
_LATER_S = 30.0  # until a job that nobody could read is looked at again
_TOO_MANY = 2**31  # attempts: a driver gives the job up and tells its receiver
_UNREADABLE = to_failure(errors.GenerationFailed())


class SqlJobStore(SqlStore):
    """Implements `jobs.protocol.JobStore`; the tables must be there (`jobs.migrate`)."""

    def __init__(self, config: DatabaseConfig) -> None:
        super().__init__(Database(config))
        self._count_usage = usage.count(self.database)
        self._unreadable_s = config.unreadable_s

    @reads()
    def admit(
        self,
        connection: Connection,
        key_id: str,
        max_open: int,
        rules: KeyRules | None = None,
        idempotency: Idempotency | None = None,
        *,
        guests: int = 0,
    ) -> Job | None:
        """Look what `add` would say; see the protocol."""
        row = admission.find_repeated(connection, key_id, idempotency)
        if row is not None:
            return _readable(row)
        admission.check_room(connection, key_id, max_open, guests)
        if rules is not None:
            admission.check_key(connection, key_id, rules, None)
        return None

    @writes()
    def add(  # noqa: PLR0913  # as the protocol has it
        self,
        connection: Connection,
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
        row: dict[str, object] = {
            "state": JobState.QUEUED,
            "model_id": asked_id(request.spec.model_id),
            "canary": 1 if is_canary(request.spec.model_id) else None,
            "key_id": key_id,
            "attempts": 0,
            "samples": request.spec.samples,
            "traceparent": request.traceparent or None,
            "idempotency_key": idempotency and idempotency.key,
            "idempotency_digest": idempotency and idempotency.digest,
            "priority": request.priority or None,
        }
        weight: float | None = None
        statement = statements.ADD
        if lease is not None:
            statement = statements.ADD_HELD
            row |= {"state": JobState.PROCESSING, "attempts": 1}
            row |= {"lease_owner": lease.owner, "lease_s": lease.seconds}
        # One after the other, or two would both see the last free place.
        self.database.lock(connection, _ADD_LOCK)
        repeated = admission.find_repeated(connection, key_id, idempotency)
        if repeated is not None:
            return _readable(repeated)
        admission.check_room(connection, key_id, max_open, guests)
        if rules is not None:
            rules = admission.check_key(connection, key_id, rules, request)
            weight, request = rules.weight, placed(request, rules)
        admission.forget(connection, key_id, idempotency)
        drawn = connection.execute(statements.NEXT_NUMBER).one()
        job_id = id_of(drawn.last, drawn.key, drawn.first)
        row |= {"number": drawn.last, "id": job_id, "weight": weight}
        row["request"] = codec.dump(request)
        created_at = connection.execute(statement, row).scalar_one()
        return Job(
            id=job_id,
            state=JobState.QUEUED if lease is None else JobState.PROCESSING,
            request=request,
            attempts=0 if lease is None else 1,
            created_at=created_at,
            started_at=None if lease is None else created_at,
            weight=weight or 1.0,
            number=drawn.last,
        )

    @reads()
    def get(self, connection: Connection, job_id: int) -> Job | None:
        """Read a job; see the protocol."""
        if not 0 < job_id <= MAX_ID:
            return None
        row = connection.execute(statements.GET, {"job_id": job_id}).one_or_none()
        return None if row is None else _readable(row)

    @reads()
    def ended(self, connection: Connection, job_ids: Collection[int]) -> set[int]:
        """Return which are no longer open; see the protocol."""
        still_open = select(jobs.c.id).where(statements.OPEN, jobs.c.id.in_(job_ids))
        return set(job_ids) - set(connection.scalars(still_open).all())

    @writes(is_durable=False)
    def claim(self, connection: Connection, owner: str, lease_s: float, limit: int) -> list[Job]:
        """Take leases on due jobs; see the protocol."""
        values = {"owner": owner, "lease_s": lease_s, "num_jobs": limit}
        rows = connection.execute(statements.CLAIM, values).all()
        rows = sorted(rows, key=lambda row: (row.number, row.id))
        taken = {row.id: _read(row) for row in rows}
        lost = {row.id: row for row in rows if taken[row.id] is None}
        if lost:
            taken |= self._put_back(connection, lost)
        return [job for job in taken.values() if job]

    @writes(is_durable=False)
    def renew(
        self, connection: Connection, owner: str, lease_s: float, progress: dict[int, float]
    ) -> set[int]:
        """Extend leases; see the protocol."""
        if not progress:
            return set()
        shares = {job_id: codec.share(value) for job_id, value in progress.items()}
        extend = (
            update(jobs)
            .where(jobs.c.id.in_(shares), statements.HELD)
            .values(lease_until=Now() + lease_s, progress=case(shares, value=jobs.c.id))
            .returning(jobs.c.id)
        )
        return set(connection.scalars(extend, {"owner": owner}).all())

    @writes(is_durable=False)
    def release(
        self,
        connection: Connection,
        owner: str,
        job_ids: Sequence[int],
        delay_s: float = 0.0,
        *,
        refund: bool = False,
    ) -> None:
        """Return jobs to the queue; see the protocol."""
        give_back = (
            update(jobs)
            .where(jobs.c.id.in_(job_ids), statements.HELD)
            .values(
                state=JobState.QUEUED,
                lease_owner=None,
                lease_until=None,
                not_before=Now() + delay_s,
                progress=0.0,
                attempts=jobs.c.attempts - int(refund),
            )
        )
        connection.execute(give_back, {"owner": owner})

    async def succeed(
        self, owner: str, job_id: int, result: JobResult, webhook_body: str | None = None
    ) -> bool:
        """Settle a held job; see the protocol."""
        values = {"state": JobState.SUCCESS, "result": codec.dump(result), "progress": 1.0}
        return await self._settle(
            statements.SETTLE_HELD, job_id, {"owner": owner, **values}, webhook_body, result
        )

    async def fail(
        self, owner: str, job_id: int, failure: JobFailure, webhook_body: str | None = None
    ) -> bool:
        """Settle a held job; see the protocol."""
        values = {"state": JobState.FAILED, "failure": codec.dump(failure)}
        return await self._settle(
            statements.SETTLE_HELD, job_id, {"owner": owner, **values}, webhook_body
        )

    async def cancel(self, job_id: int, webhook_body: str | None = None) -> bool:
        """Settle an open job as cancelled; see the protocol."""
        if not 0 < job_id <= MAX_ID:
            return False
        values = {"state": JobState.CANCELLED}
        return await self._settle(statements.CANCEL, job_id, values, webhook_body)

    @reads()
    def count_open(self, connection: Connection) -> dict[str, int]:
        """Count open jobs per model; see the protocol."""
        count = (
            select(jobs.c.model_id, func.count().label("num_jobs"))
            .where(statements.OPEN)
            .group_by(jobs.c.model_id)
        )
        return {row.model_id: row.num_jobs for row in connection.execute(count)}

    @reads()
    def waiting(self, connection: Connection, model_id: str) -> Line:
        """Return the jobs of a model that have not begun; see the protocol."""
        of_model = {"model_id": model_id}
        begun = connection.execute(statements.BEGUN_OF_MODEL, of_model)
        return _line(begun, connection.execute(statements.WAITING, of_model))

    @reads()
    def turns(self, connection: Connection) -> Line:
        """Return what is at work and who is next; see the protocol."""
        begun = connection.execute(statements.BEGUN)
        return _line(begun, connection.execute(statements.QUEUED))

    @reads()
    def secret(self, connection: Connection, purpose: str) -> bytes:
        """Derive a secret from the key of the database; see the protocol."""
        key = connection.execute(select(job_numbers.c.key)).scalar_one()
        return derived(key, purpose)

    @reads()
    def oldest_open_s(self, connection: Connection) -> float:
        """Return the age of the oldest open job; see the protocol."""
        age = select(Now() - func.min(jobs.c.created_at)).where(statements.OPEN)
        return float(connection.execute(age).scalar_one() or 0.0)

    @reads()
    def last_failed(self, connection: Connection, limit: int) -> list[Job]:
        """Return jobs that failed; see the protocol."""
        latest = jobs.c.finished_at.desc()
        ended = select(jobs.c.id).where(~statements.OPEN).order_by(latest).limit(_LATEST)
        failed = (
            select(*statements.COLUMNS)
            .where(jobs.c.id.in_(ended), jobs.c.state == JobState.FAILED)
            .order_by(latest)
            .limit(limit)
        )
        rows = connection.execute(failed).all()
        return [job for row in rows if (job := _read(row))]

    @writes(is_durable=False)
    def expire(self, connection: Connection, older_than_s: float, limit: int = 1000) -> list[Job]:
        """Remove old final jobs; see the protocol."""
        old = (
            select(jobs.c.id)
            .where(jobs.c.finished_at < Now() - older_than_s)
            .order_by(jobs.c.finished_at)
            .limit(limit)
        )
        remove = delete(jobs).where(jobs.c.id.in_(old)).returning(*statements.COLUMNS)
        rows = connection.execute(remove).all()
        return [job for row in rows if (job := _read(row))]

    async def close(self) -> None:
        """Release the connections, also of those who borrowed `database`."""
        await self.database.close()

    @writes()
    def _settle(
        self,
        connection: Connection,
        settle: Update,
        job_id: int,
        values: Mapping[str, object],
        webhook_body: str | None,
        result: JobResult | None = None,
    ) -> bool:
        """Make a job final, leave its webhook in the outbox and count what it cost; all or none."""
        row = connection.execute(settle, {"job_id": job_id, **values}).one_or_none()
        if row is None:
            return False
        url = None if webhook_body is None else codec.load_known(row.request).webhook
        if webhook_body is not None and url is not None:
            insert_message(connection, job_id, row.key_id, url, webhook_body)
        # Last: others who settle for the same key wait for this row until the commit.
        connection.execute(self._count_usage, usage.counted(row, result))
        return True

    def _put_back(
        self, connection: Connection, lost: dict[int, Row[tuple[object, ...]]]
    ) -> dict[int, Job]:
        """Leave jobs that nobody can read here to a process of the version that wrote them.

        Those that none has come for are given up: returned as jobs that were run too often.
        """
        leave = (
            update(jobs)
            .where(jobs.c.id.in_(lost), jobs.c.created_at > Now() - self._unreadable_s)
            .values(
                state=JobState.QUEUED,
                attempts=jobs.c.attempts - 1,
                lease_owner=None,
                lease_until=None,
                not_before=Now() + _LATER_S,
            )
            .returning(jobs.c.id)
        )
        left = set(connection.scalars(leave).all())
        _log.warning("unreadable_jobs_left", job_ids=sorted(left))
        given_up: dict[int, Job] = {}
        for job_id in sorted(lost.keys() - left):
            try:
                request = codec.load_known(lost[job_id].request)
                given_up[job_id] = _job(lost[job_id], request, attempts=_TOO_MANY)
            except ValueError:  # nobody could be told: its receiver is not known
                self._fail(connection, job_id)
        return given_up

    def _fail(self, connection: Connection, job_id: int) -> None:
        _log.error("unreadable_job_failed", job_id=job_id)
        values = {"state": JobState.FAILED, "failure": codec.dump(_UNREADABLE)}
        row = connection.execute(statements.CANCEL, {"job_id": job_id, **values}).one()
        connection.execute(self._count_usage, usage.counted(row, None))


def _line(begun: Iterable[Row[str, int]], turns: Iterable[Row[tuple[object, ...]]]) -> Line:
    waiting = (Turn(row.due, row.number, row.id, row.owner, row.rank) for row in turns)
    return Line(waiting, Counter({row.owner: row.num for row in begun}))


def _readable(row: Row[tuple[object, ...]]) -> Job:
    job = _read(row)
    if job is None:
        raise errors.JobStoreUnavailable(f"job {row.id} was written by another version")
    return job


def _read(row: Row[tuple[object, ...]]) -> Job | None:
    """Build the job of a row; None when another version of the service wrote it."""
    try:
        return _job(row, codec.load(JobRequest, row.request), row.attempts)
    except ValueError:
        _log.exception("unreadable_job", job_id=row.id)
        return None


def _job(row: Row[tuple[object, ...]], request: JobRequest, attempts: int) -> Job:
    return Job(
        id=row.id,
        state=JobState(row.state),
        request=codec.with_columns(
            request,
            priority=row.priority or 0,
            traceparent=row.traceparent or "",
            is_canary=bool(row.canary),
        ),
        attempts=attempts,
        progress=row.progress,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        result=None if row.result is None else codec.load(JobResult, row.result),
        failure=None if row.failure is None else codec.load(JobFailure, row.failure),
        weight=row.weight or 1.0,
        number=row.number,
    )
