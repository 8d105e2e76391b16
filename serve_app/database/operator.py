"""What operators ask of jobs and webhook messages, and nobody else: lists, and another try."""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Row, or_, select, update

from serve_app.database import codec
from serve_app.database.audit import note
from serve_app.database.connection import Database, Now
from serve_app.database.jobs import SqlJobStore
from serve_app.database.schema import jobs, outbox
from serve_app.types import JobFailure, JobState
from serve_app.webhooks.protocol import DeliveryState

__all__ = [
    "JobSummary",
    "MessageSummary",
    "cancel_job",
    "list_jobs",
    "list_messages",
    "retry_job",
    "retry_message",
]

_AGAIN = (JobState.FAILED, JobState.CANCELLED, JobState.QUEUED)


@dataclass(frozen=True, slots=True)
class JobSummary:
    """One job in a list. Times in seconds; code: why it failed, empty if it did not."""

    id: int
    state: JobState
    model_id: str
    key_id: str
    attempts: int
    progress: float
    age_s: float
    code: str


@dataclass(frozen=True, slots=True)
class MessageSummary:
    """One webhook message in a list. due_s: seconds until its next attempt, if it has one."""

    id: str
    job_id: int
    state: DeliveryState
    url: str
    attempts: int
    age_s: float
    due_s: float | None


async def list_jobs(
    database: Database,
    limit: int,
    state: JobState | None = None,
    model_id: str | None = None,
    key_id: str | None = None,
) -> list[JobSummary]:
    """List jobs, the newest first, of a state, model or key where one is given."""
    wanted = (jobs.c.state == state, jobs.c.model_id == model_id, jobs.c.key_id == key_id)
    given = (state, model_id, key_id)
    query = (
        select(jobs, (Now() - jobs.c.created_at).label("age_s"))
        .where(*_asked(wanted, given))
        .order_by(jobs.c.created_at.desc(), jobs.c.number.desc())
        .limit(limit)
    )
    return await database.read(lambda link: [_job(row) for row in link.execute(query)])


async def retry_job(database: Database, job_id: int) -> bool:
    """Put a failed or cancelled job back into the queue, as new; a queued one is due at once.

    False: there is none, or it is at work or has succeeded. When it ends its webhook is told again.
    """
    again = (
        update(jobs)
        .where(jobs.c.id == job_id, jobs.c.state.in_(_AGAIN))
        .values(
            state=JobState.QUEUED,
            failure=None,
            attempts=0,
            progress=0.0,
            not_before=Now(),
            lease_owner=None,
            lease_until=None,
            started_at=None,
            finished_at=None,
        )
        .returning(jobs.c.id)
    )

    def put_back(connection: Connection) -> bool:
        is_done = connection.scalar(again) is not None
        if is_done:
            note(connection, "job.retry", str(job_id))
        return is_done

    return await database.write(put_back)


async def cancel_job(store: SqlJobStore, job_id: int, webhook_body: str | None) -> bool:
    """Settle an open job as cancelled, as its client could; False when it was final already."""
    is_done = await store.cancel(job_id, webhook_body)
    if is_done:
        await store.database.write(lambda link: note(link, "job.cancel", str(job_id)))
    return is_done


async def list_messages(
    database: Database, limit: int, state: DeliveryState | None = None, job_id: int | None = None
) -> list[MessageSummary]:
    """List webhook messages, the newest first, of a state or job where one is given."""
    wanted = (outbox.c.state == state, outbox.c.job_id == job_id)
    query = (
        select(
            outbox,
            (Now() - outbox.c.created_at).label("age_s"),
            (outbox.c.next_at - Now()).label("due_s"),
        )
        .where(*_asked(wanted, (state, job_id)))
        .order_by(outbox.c.created_at.desc(), outbox.c.id)
        .limit(limit)
    )
    return await database.read(lambda link: [_message(row) for row in link.execute(query)])


async def retry_message(database: Database, message_id: str) -> bool:
    """Send a message now, with all its attempts before it, whatever became of it before.

    False: there is none, or it is being sent.
    """
    is_free = or_(outbox.c.lease_until.is_(None), outbox.c.lease_until <= Now())
    again = (
        update(outbox)
        .where(outbox.c.id == message_id, is_free)
        .values(state=DeliveryState.PENDING, attempts=0, next_at=Now(), finished_at=None)
        .returning(outbox.c.id)
    )

    def put_back(connection: Connection) -> bool:
        is_done = connection.scalar(again) is not None
        if is_done:
            note(connection, "webhook.retry", message_id)
        return is_done

    return await database.write(put_back)


def _asked(
    wanted: tuple[ColumnElement[bool], ...], given: tuple[object, ...]
) -> list[ColumnElement[bool]]:
    return [clause for clause, value in zip(wanted, given, strict=True) if value is not None]


def _job(row: Row[tuple[object, ...]]) -> JobSummary:
    return JobSummary(
        id=row.id,
        state=JobState(row.state),
        model_id=row.model_id,
        key_id=row.key_id,
        attempts=row.attempts,
        progress=row.progress,
        age_s=row.age_s,
        code="" if row.failure is None else codec.load(JobFailure, row.failure).code,
    )


def _message(row: Row[tuple[object, ...]]) -> MessageSummary:
    return MessageSummary(
        id=row.id,
        job_id=row.job_id,
        state=DeliveryState(row.state),
        url=row.url,
        attempts=row.attempts,
        age_s=row.age_s,
        due_s=None if row.finished_at is not None else max(0.0, row.due_s),
    )
