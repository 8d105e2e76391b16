"""The log of what operators do: written in the transaction that does it, and never changed."""

import json
from collections.abc import Mapping

from sqlalchemy import Connection, insert, select

from serve_app.database.codec import escape
from serve_app.database.connection import Now
from serve_app.database.schema import audit
from serve_app.database.transaction import SqlStore, reads
from serve_app.jobs.protocol import Deed
from serve_app.telemetry.actor import actor

__all__ = ["SqlAuditLog", "note"]


def note(
    connection: Connection,
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
    connection.execute(insert(audit).values(row))


class SqlAuditLog(SqlStore):
    """Implements `jobs.protocol.AuditLog` on the connections of a job store or its own."""

    @reads()
    def deeds(self, connection: Connection, limit: int, subject: str | None = None) -> list[Deed]:
        """List what was done, the latest first; see the protocol."""
        query = select(audit).order_by(audit.c.id.desc()).limit(limit)
        if subject is not None:
            query = query.where(audit.c.subject == subject)
        rows = connection.execute(query).all()
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
