"""What decides whether a job is accepted, as SQL on the connection of the caller.

Asked twice: without a lock, so that a refusal never waits for writers, and again in the transaction
that adds the job, where the answer holds.
"""

from sqlalchemy import ColumnElement, Row, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app import errors
from serve_app.database.connection import Now
from serve_app.database.schema import jobs
from serve_app.jobs.protocol import Idempotency

__all__ = ["check_room", "find_repeated", "forget"]

_NUM_OPEN = select(func.count()).where(jobs.c.finished_at.is_(None))


async def find_repeated(
    connection: AsyncConnection, key_id: str, idempotency: Idempotency | None
) -> Row[tuple[object, ...]] | None:
    """Find the job that came first with this idempotency key, if it is not too long ago.

    Raises:
        errors.InvalidRequest: that one asked for something else.
    """
    if idempotency is None:
        return None
    is_recent = jobs.c.created_at > Now() - idempotency.ttl_s
    find = select(jobs).where(_named(key_id, idempotency), is_recent)
    row = (await connection.execute(find)).one_or_none()
    if row is not None:
        idempotency.check(row.idempotency_digest)
    return row


async def forget(connection: AsyncConnection, key_id: str, idempotency: Idempotency | None) -> None:
    """Free an idempotency key whose time is over."""
    if idempotency is None:
        return
    values = {"idempotency_key": None, "idempotency_digest": None}
    await connection.execute(update(jobs).where(_named(key_id, idempotency)).values(values))


async def check_room(
    connection: AsyncConnection, key_id: str, max_open: int, max_open_per_key: int | None
) -> None:
    """Refuse what is too much.

    Raises:
        errors.Overloaded: too many jobs are open.
        errors.TooManyOpen: too many of them are this key's.
    """
    num_open = await connection.scalar(_NUM_OPEN)
    if (num_open or 0) >= max_open:
        raise errors.Overloaded()
    if max_open_per_key is None:
        return
    num_mine = await connection.scalar(_NUM_OPEN.where(jobs.c.key_id == key_id))
    if (num_mine or 0) >= max_open_per_key:
        raise errors.TooManyOpen(max_open_per_key, num_open or 0)


def _named(key_id: str, idempotency: Idempotency) -> ColumnElement[bool]:
    return (jobs.c.key_id == key_id) & (jobs.c.idempotency_key == idempotency.key)
