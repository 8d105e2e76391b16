"""The log of what operators do: written in the transaction that does it, and never changed."""

import json
from collections.abc import Mapping

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app.database.codec import escape
from serve_app.database.connection import Database, Now, uncancelled
from serve_app.database.schema import audit
from serve_app.jobs.protocol import Deed
from serve_app.telemetry.actor import actor

__all__ = ["SqlAuditLog", "note"]


async def note(
    connection: AsyncConnection,
    action: str,
    subject: str,
    detail: Mapping[str, object] | None = None,
) -> None:
    """Write down what is done in this transaction, and by whom; no secret may be in the detail."""
    row = {
        "at": Now(),
        "actor": escape(actor()),
        "action": action,
        "subject": subject,
        "detail": json.dumps(detail or {}, separators=(",", ":"), default=str),
    }
    await connection.execute(insert(audit).values(row))


@uncancelled
class SqlAuditLog:
    """Implements `jobs.protocol.AuditLog` on the connections of a job store or its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def deeds(self, limit: int, subject: str | None = None) -> list[Deed]:
        """List what was done, the latest first; see the protocol."""
        query = select(audit).order_by(audit.c.id.desc()).limit(limit)
        if subject is not None:
            query = query.where(audit.c.subject == subject)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return [
            Deed(
                at=row.at,
                actor=row.actor,
                action=row.action,
                subject=row.subject,
                detail=json.loads(row.detail),
            )
            for row in rows
        ]
