"""`SqlOutbox`: webhook messages in SQLite or PostgreSQL, beside the jobs they tell of.

`SqlJobStore` writes a message in the transaction that settles its job; here it is claimed, sent by
`serve_app.webhooks` and settled in turn.
"""

import secrets
from collections.abc import Mapping, Set

from sqlalchemy import Connection, bindparam, delete, func, insert, or_, select, update

from serve_app.database import codec
from serve_app.database.connection import Now
from serve_app.database.schema import api_keys, jobs, outbox
from serve_app.database.transaction import SqlStore, reads, writes
from serve_app.webhooks.protocol import Backlog, DeliveryState, Message

__all__ = ["SqlOutbox", "insert_message", "new_message_id"]

_OPEN = outbox.c.finished_at.is_(None)
_FREE = or_(outbox.c.lease_until.is_(None), outbox.c.lease_until <= Now())

# Built once, as in `statements`: mostly nothing is due, and to build it cost five times the look.
_DUE = (
    select(outbox.c.id)
    .where(_OPEN, outbox.c.next_at <= Now(), _FREE)
    .order_by(outbox.c.next_at)
    .limit(bindparam("num_messages"))
    .with_for_update(skip_locked=True)
    .cte("due")
)
_CLAIM = (
    update(outbox)
    .where(outbox.c.id.in_(select(_DUE.c.id)))
    .values(lease_owner=bindparam("owner"), lease_until=Now() + bindparam("lease_s"))
    .returning(outbox)
)


def new_message_id() -> str:
    """Draw an id that no client controls and that stays the same over all attempts.

    Source: Standard Webhooks 1.0.0, "webhook-id".
    """
    return f"msg_{secrets.token_urlsafe(18)}"


def insert_message(connection: Connection, job_id: int, key_id: str, url: str, body: str) -> None:
    """Leave a message, due at once, in the transaction of the caller."""
    row = {
        "id": new_message_id(),
        "job_id": job_id,
        "key_id": key_id,
        "state": DeliveryState.PENDING,
        "url": url,
        "body": codec.escape(body),
        "attempts": 0,
        "next_at": Now(),
        "created_at": Now(),
    }
    connection.execute(insert(outbox).values(row))


def _secrets(connection: Connection, key_ids: Set[str | None]) -> dict[str, str]:
    """Return by key what its messages are signed with, as far as keys have secrets of their own."""
    if not key_ids - {None}:
        return {}
    own = select(api_keys.c.id, api_keys.c.webhook_secret).where(
        api_keys.c.id.in_(key_ids - {None}), api_keys.c.webhook_secret.is_not(None)
    )
    return {row.id: row.webhook_secret for row in connection.execute(own)}


def _traces(connection: Connection, job_ids: Set[int]) -> dict[int, str]:
    """Return by job the span that its call began, as far as there are traces."""
    if not job_ids:
        return {}
    begun = select(jobs.c.id, jobs.c.traceparent).where(
        jobs.c.id.in_(job_ids), jobs.c.traceparent.is_not(None)
    )
    return {row.id: row.traceparent for row in connection.execute(begun)}


class SqlOutbox(SqlStore):
    """Implements `webhooks.protocol.Outbox` on the connections of a job store."""

    @writes(is_durable=False)
    def claim(
        self, connection: Connection, owner: str, lease_s: float, limit: int
    ) -> list[Message]:
        """Take leases on due messages; see the protocol."""
        values = {"owner": owner, "lease_s": lease_s, "num_messages": limit}
        rows = connection.execute(_CLAIM, values).all()
        if not rows:
            return []
        secrets_of = _secrets(connection, {row.key_id for row in rows})
        traces_of = _traces(connection, {row.job_id for row in rows})
        rows = sorted(rows, key=lambda row: (row.next_at, row.id))
        return [
            Message(
                id=row.id,
                job_id=row.job_id,
                url=row.url,
                body=row.body,
                attempts=row.attempts,
                secret=secrets_of.get(row.key_id),
                traceparent=traces_of.get(row.job_id, ""),
            )
            for row in rows
        ]

    async def reschedule(self, owner: str, message_id: str, delay_s: float) -> bool:
        """Try again later; see the protocol."""
        values = {"next_at": Now() + delay_s, "attempts": outbox.c.attempts + 1}
        return await self._update(owner, message_id, values)

    async def settle(self, owner: str, message_id: str, state: DeliveryState) -> bool:
        """Make a message final; see the protocol."""
        assert state is not DeliveryState.PENDING, "pending is no final state"
        values = {"state": state, "attempts": outbox.c.attempts + 1, "finished_at": Now()}
        return await self._update(owner, message_id, values)

    @reads()
    def state_of(self, connection: Connection, job_id: int) -> DeliveryState | None:
        """Return the delivery state of a job's webhook; see the protocol."""
        latest = outbox.c.created_at.desc()  # a job that was tried again is told of again
        state = select(outbox.c.state).where(outbox.c.job_id == job_id).order_by(latest).limit(1)
        found = connection.scalar(state)
        return None if found is None else DeliveryState(found)

    @reads()
    def backlog(self, connection: Connection) -> Backlog:
        """Count messages; see the protocol."""
        waiting = outbox.c.next_at <= Now(), _FREE
        age_s = select(Now() - func.min(outbox.c.next_at)).where(_OPEN, *waiting)
        pending = connection.scalar(select(func.count()).where(_OPEN))
        overdue_s = connection.scalar(age_s)
        return Backlog(pending or 0, float(overdue_s or 0.0))

    @writes(is_durable=False)
    def expire(self, connection: Connection, older_than_s: float, limit: int = 1000) -> int:
        """Remove old final messages; see the protocol."""
        old = (
            select(outbox.c.id)
            .where(outbox.c.finished_at < Now() - older_than_s)
            .order_by(outbox.c.finished_at)
            .limit(limit)
        )
        remove = delete(outbox).where(outbox.c.id.in_(old)).returning(outbox.c.id)
        return len(connection.execute(remove).all())

    @writes()
    def _update(
        self, connection: Connection, owner: str, message_id: str, values: Mapping[str, object]
    ) -> bool:
        """Change a message that this sender holds and let go of it."""
        change = (
            update(outbox)
            .where(outbox.c.id == message_id, _OPEN, outbox.c.lease_owner == owner)
            .values(lease_owner=None, lease_until=None, **values)
            .returning(outbox.c.id)
        )
        return connection.scalar(change) is not None
