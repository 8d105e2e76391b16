"""What jobs cost, added up in the transactions that settle them, and read by month."""

from datetime import UTC, datetime

from sqlalchemy import Connection, Row, func, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from serve_app.database.codec import check_text
from serve_app.database.connection import Database, Now
from serve_app.database.schema import usage
from serve_app.database.transaction import SqlStore, reads
from serve_app.jobs.protocol import Usage
from serve_app.types import JobResult

__all__ = ["SqlUsageStore", "count", "counted", "day_of", "days_of", "month_of"]

_SUMS = [column.name for column in usage.c if not column.primary_key]


def count(database: Database) -> postgresql.Insert | sqlite.Insert:
    """Build the statement that adds one job's `counted` values."""
    return database.adding(usage, _SUMS)


def counted(settled: Row[tuple[object, ...]], result: JobResult | None) -> dict[str, object]:
    """Return what a job adds, from its row as `statements.SETTLE_HELD` returns it."""
    ends = dict.fromkeys(("succeeded", "failed", "cancelled"), 0)
    ends["succeeded" if result is not None else str(settled.state)] = 1
    cost = {"row_steps": 0, "device_s": 0.0, "stored_bytes": 0}
    if result is not None:
        cost = result.cost.model_dump()
    return {
        "key_id": settled.key_id,
        "day": day_of(settled.finished_at),
        "model_id": settled.model_id,
        "pictures": 0 if result is None else len(result.keys),
        **ends,
        **cost,
    }


def day_of(seconds: float) -> str:
    """Return the day of a time, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def month_of(seconds: float) -> str:
    """Return the month of a time, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m")


class SqlUsageStore(SqlStore):
    """Implements `jobs.protocol.UsageStore` on the connections of a job store or its own."""

    @reads()
    def usage(
        self,
        connection: Connection,
        month: str,
        limit: int | None = None,
        after: tuple[str, str, str] | None = None,
    ) -> list[Usage]:
        """List what a month cost; see the protocol."""
        order = (usage.c.day, usage.c.key_id, usage.c.model_id)
        rows = select(usage).where(usage.c.day.between(*days_of(month))).order_by(*order)
        if after is not None:
            rows = rows.where(tuple_(*order) > tuple_(*(check_text("after", x) for x in after)))
        rows = rows.limit(limit)
        found = connection.execute(rows)
        return [Usage.model_validate(dict(row._mapping)) for row in found]

    @reads()
    def this_month(self, connection: Connection) -> str:
        """Return the month that it is; see the protocol."""
        return month_of(float(connection.execute(select(Now())).scalar_one()))

    @reads()
    def by_model(self, connection: Connection, month: str) -> dict[str, Usage]:
        """Add up what each model cost in a month; see the protocol."""
        sums = [func.sum(usage.c[name]).label(name) for name in _SUMS]
        query = (
            select(usage.c.model_id, *sums)
            .where(usage.c.day.between(*days_of(month)))
            .group_by(usage.c.model_id)
        )
        rows = connection.execute(query).all()
        return {
            row.model_id: Usage.model_validate({"day": month, "key_id": "", **row._mapping})
            for row in rows
        }


def days_of(month: str) -> tuple[str, str]:
    """Return two texts between which all days of a month are, and no others."""
    return month, f"{month}-99"
