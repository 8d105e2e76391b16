"""`SqlJobStore`: jobs in SQLite or PostgreSQL. It owns the connections of its process.

Each method is one short transaction, so that nothing is locked while Python thinks. A job is taken
by one UPDATE: PostgreSQL skips the rows that another claim has locked, SQLite has one writer at a
time.
"""

from collections.abc import Collection, Mapping, Sequence

import structlog
from sqlalchemy import Row, Update, case, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app import errors
from serve_app.config import DatabaseConfig
from serve_app.database import admission, codec, statements, usage
from serve_app.database.connection import Database, Now, uncancelled
from serve_app.database.outbox import insert_message
from serve_app.database.schema import job_numbers, jobs
from serve_app.failure import to_failure
from serve_app.jobs.number import derived, id_of
from serve_app.jobs.protocol import Idempotency, Lease
from serve_app.jobs.rules import KeyRules
from serve_app.types import Job, JobFailure, JobRequest, JobResult, JobState

__all__ = ["SqlJobStore"]

_log = structlog.get_logger()

_ADD_LOCK = 0x6472_6561_6D01  # "dream" 01; any number that only this use has
_LATEST = 1000  # that ended, among which failed ones are looked for
_MAX_ID = 2**63 - 1  # clients send any number; drivers choke on larger ones
_UNREADABLE = to_failure(errors.GenerationFailed())


@uncancelled
class SqlJobStore:
    """Implements `jobs.protocol.JobStore`; the tables must be there (`jobs.migrate`)."""

    def __init__(self, config: DatabaseConfig) -> None:
        self.database = Database(config)
        self._count_usage = usage.count(self.database)

    async def admit(
        self,
        key_id: str,
        max_open: int,
        rules: KeyRules | None = None,
        idempotency: Idempotency | None = None,
    ) -> Job | None:
        """Look what `add` would say; see the protocol."""
        async with self.database.read() as connection:
            row = await admission.find_repeated(connection, key_id, idempotency)
            if row is not None:
                return _readable(row)
            await admission.check_room(connection, max_open)
            if rules is not None:
                await admission.check_key(connection, key_id, rules, None)
        return None

    async def add(
        self,
        request: JobRequest,
        max_open: int,
        rules: KeyRules | None = None,
        idempotency: Idempotency | None = None,
        lease: Lease | None = None,
    ) -> Job:
        """Accept a job; see the protocol."""
        key_id = codec.check_request(request).key_id
        row: dict[str, object] = {
            "state": JobState.QUEUED,
            "model_id": request.spec.model_id,
            "key_id": key_id,
            "request": codec.dump(request),
            "attempts": 0,
            "samples": request.spec.samples,
            "traceparent": request.traceparent or None,
            "idempotency_key": idempotency and idempotency.key,
            "idempotency_digest": idempotency and idempotency.digest,
        }
        statement = statements.ADD
        if lease is not None:
            statement = statements.ADD_HELD
            row |= {"state": JobState.PROCESSING, "attempts": 1}
            row |= {"lease_owner": lease.owner, "lease_s": lease.seconds}
        async with self.database.write() as connection:
            # One after the other, or two would both see the last free place.
            await self.database.lock(connection, _ADD_LOCK)
            repeated = await admission.find_repeated(connection, key_id, idempotency)
            if repeated is not None:
                return _readable(repeated)
            await admission.check_room(connection, max_open)
            if rules is not None:
                await admission.check_key(connection, key_id, rules, request)
            await admission.forget(connection, key_id, idempotency)
            drawn = (await connection.execute(statements.NEXT_NUMBER)).one()
            job_id = id_of(drawn.last, drawn.key, drawn.first)
            row |= {"number": drawn.last, "id": job_id}
            created_at = (await connection.execute(statement, row)).scalar_one()
        return Job(
            id=job_id,
            state=JobState.QUEUED if lease is None else JobState.PROCESSING,
            request=request,
            attempts=0 if lease is None else 1,
            created_at=created_at,
            started_at=None if lease is None else created_at,
        )

    async def get(self, job_id: int) -> Job | None:
        """Read a job; see the protocol."""
        if not 0 < job_id <= _MAX_ID:
            return None
        async with self.database.read() as connection:
            row = (await connection.execute(statements.GET, {"job_id": job_id})).one_or_none()
        return None if row is None else _readable(row)

    async def ended(self, job_ids: Collection[int]) -> set[int]:
        """Return which are no longer open; see the protocol."""
        still_open = select(jobs.c.id).where(statements.OPEN, jobs.c.id.in_(job_ids))
        async with self.database.read() as connection:
            return set(job_ids) - set((await connection.scalars(still_open)).all())

    async def claim(self, owner: str, lease_s: float, limit: int) -> list[Job]:
        """Take leases on due jobs; see the protocol."""
        values = {"owner": owner, "lease_s": lease_s, "num_jobs": limit}
        async with self.database.write(is_durable=False) as connection:
            rows = (await connection.execute(statements.CLAIM, values)).all()
            rows = sorted(rows, key=lambda row: (row.number, row.id))
            taken = {row.id: _read(row) for row in rows}
            lost = [job_id for job_id, job in taken.items() if job is None]
            if lost:
                await self._give_up(connection, lost)
        return [job for job in taken.values() if job]

    async def renew(self, owner: str, lease_s: float, progress: dict[int, float]) -> set[int]:
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
        async with self.database.write(is_durable=False) as connection:
            return set((await connection.scalars(extend, {"owner": owner})).all())

    async def release(
        self, owner: str, job_ids: Sequence[int], delay_s: float = 0.0, *, refund: bool = False
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
        async with self.database.write(is_durable=False) as connection:
            await connection.execute(give_back, {"owner": owner})

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
        if not 0 < job_id <= _MAX_ID:
            return False
        values = {"state": JobState.CANCELLED}
        return await self._settle(statements.CANCEL, job_id, values, webhook_body)

    async def count_open(self) -> dict[str, int]:
        """Count open jobs per model; see the protocol."""
        count = (
            select(jobs.c.model_id, func.count().label("num_jobs"))
            .where(statements.OPEN)
            .group_by(jobs.c.model_id)
        )
        async with self.database.read() as connection:
            return {row.model_id: row.num_jobs for row in await connection.execute(count)}

    async def waiting(self, model_id: str) -> list[int]:
        """List jobs of a model that have not begun; see the protocol."""
        async with self.database.read() as connection:
            found = await connection.scalars(statements.WAITING, {"model_id": model_id})
            return [int(job_id) for job_id in found.all()]

    async def secret(self, purpose: str) -> bytes:
        """Derive a secret from the key of the database; see the protocol."""
        async with self.database.read() as connection:
            key = (await connection.execute(select(job_numbers.c.key))).scalar_one()
        return derived(key, purpose)

    async def oldest_open_s(self) -> float:
        """Return the age of the oldest open job; see the protocol."""
        age = select(Now() - func.min(jobs.c.created_at)).where(statements.OPEN)
        async with self.database.read() as connection:
            return float((await connection.execute(age)).scalar_one() or 0.0)

    async def last_failed(self, limit: int) -> list[Job]:
        """Return jobs that failed; see the protocol."""
        latest = jobs.c.finished_at.desc()
        ended = select(jobs.c.id).where(~statements.OPEN).order_by(latest).limit(_LATEST)
        failed = (
            select(*statements.COLUMNS)
            .where(jobs.c.id.in_(ended), jobs.c.state == JobState.FAILED)
            .order_by(latest)
            .limit(limit)
        )
        async with self.database.read() as connection:
            rows = (await connection.execute(failed)).all()
        return [job for row in rows if (job := _read(row))]

    async def expire(self, older_than_s: float, limit: int = 1000) -> list[Job]:
        """Remove old final jobs; see the protocol."""
        old = (
            select(jobs.c.id)
            .where(jobs.c.finished_at < Now() - older_than_s)
            .order_by(jobs.c.finished_at)
            .limit(limit)
        )
        remove = delete(jobs).where(jobs.c.id.in_(old)).returning(*statements.COLUMNS)
        async with self.database.write(is_durable=False) as connection:
            rows = (await connection.execute(remove)).all()
        return [job for row in rows if (job := _read(row))]

    async def close(self) -> None:
        """Release the connections, also of those who borrowed `database`."""
        await self.database.close()

    async def _settle(
        self,
        settle: Update,
        job_id: int,
        values: Mapping[str, object],
        webhook_body: str | None,
        result: JobResult | None = None,
    ) -> bool:
        """Make a job final, leave its webhook in the outbox and count what it cost; all or none."""
        async with self.database.write() as connection:
            row = (await connection.execute(settle, {"job_id": job_id, **values})).one_or_none()
            if row is None:
                return False
            url = None if webhook_body is None else codec.load(JobRequest, row.request).webhook
            if webhook_body is not None and url is not None:
                await insert_message(connection, job_id, row.key_id, url, webhook_body)
            # Last: others who settle for the same key wait for this row until the commit.
            await connection.execute(self._count_usage, usage.counted(row, result))
        return True

    async def _give_up(self, connection: AsyncConnection, job_ids: list[int]) -> None:
        """Fail jobs that nobody can read, or they would be claimed for ever."""
        _log.error("unreadable_jobs_failed", job_ids=job_ids)
        values = {"state": JobState.FAILED, "failure": codec.dump(_UNREADABLE)}
        for job_id in sorted(job_ids):
            row = (await connection.execute(statements.CANCEL, {"job_id": job_id, **values})).one()
            await connection.execute(self._count_usage, usage.counted(row, None))


def _readable(row: Row[tuple[object, ...]]) -> Job:
    job = _read(row)
    if job is None:
        raise errors.JobStoreUnavailable(f"job {row.id} was written by another version")
    return job


def _read(row: Row[tuple[object, ...]]) -> Job | None:
    """Build the job of a row; None when another version of the service wrote it."""
    try:
        return Job(
            id=row.id,
            state=JobState(row.state),
            request=codec.load_request(row.request, row.traceparent),
            attempts=row.attempts,
            progress=row.progress,
            created_at=row.created_at,
            started_at=row.started_at,
            finished_at=row.finished_at,
            result=None if row.result is None else codec.load(JobResult, row.result),
            failure=None if row.failure is None else codec.load(JobFailure, row.failure),
        )
    except ValueError:
        _log.exception("unreadable_job", job_id=row.id)
        return None
