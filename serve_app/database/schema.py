"""The tables of the job database, the same on SQLite and PostgreSQL.

Times are seconds since the epoch by the database's own clock. Values that only we read are JSON in
text columns, so NUL and odd characters in prompts are no matter of the database. The migrations
build exactly these tables; a test compares both.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
)

__all__ = [
    "api_keys",
    "audit",
    "canaries",
    "catalogue_entries",
    "catalogue_version",
    "job_numbers",
    "jobs",
    "metadata",
    "model_generations",
    "model_reports",
    "model_turns",
    "outbox",
    "schema_programs",
    "usage",
]

metadata = MetaData()

_RowId = BigInteger().with_variant(Integer(), "sqlite")  # SQLite numbers only INTEGER keys itself

jobs = Table(
    "jobs",
    metadata,
    Column("id", _RowId, primary_key=True),
    Column("state", Text, nullable=False),
    Column("model_id", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("request", Text, nullable=False),
    Column("result", Text),
    Column("failure", Text),
    Column("attempts", Integer, nullable=False),
    Column("progress", Double, nullable=False),
    Column("not_before", Double, nullable=False),
    Column("lease_owner", Text),
    Column("lease_until", Double),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("idempotency_key", Text),
    Column("idempotency_digest", Text),
    Column("number", BigInteger, nullable=False, server_default="0"),
    Column("samples", Integer),
    Column("weight", Double),
    Column("priority", Integer),
    Column("traceparent", Text),
    Column("canary", Integer),
    sqlite_autoincrement=True,  # of the first version; ids are given by `number.id_of` since
)
"""One row per job. Open (queued or processing) is the same as `finished_at IS NULL`.

number: grows with acceptance, and tells who is first; the id does not. 0: a process of an older
version, still at work beside this one, accepted the job. samples: pictures asked for, by the same
versions not told. weight: of the key, priority: of the call, where they are not the common ones.
traceparent: of the span of the call that brought the job; none: no traces. canary: 1: the job is
for the canary of its model, by programs that know of it; none: for the model itself.
"""

job_numbers = Table(
    "job_numbers",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("key", Text, nullable=False),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
)
"""One row, made by the migrations: the last number of a job, and what makes ids of numbers."""

outbox = Table(
    "outbox",
    metadata,
    Column("id", Text, primary_key=True),
    Column("job_id", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_at", Double, nullable=False),
    Column("lease_owner", Text),
    Column("lease_until", Double),
    Column("created_at", Double, nullable=False),
    Column("finished_at", Double),
    Column("key_id", Text),
)
"""One row per webhook message. No foreign key: a message outlives the row of its job."""

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("prefix", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("revoked_at", Double),
    Column("rules", Text),
    Column("expires_at", Double),
    Column("old_hash", Text),
    Column("old_until", Double),
    Column("webhook_secret", Text),
)
"""One row per API key; `hash` is the SHA-256 of the secret, which is stored nowhere.

old_hash: of the secret before the last rotation, which works until `old_until`. webhook_secret:
as it is, for it signs; none: the settings have one for all.
"""

catalogue_entries = Table(
    "catalogue_entries",
    metadata,
    Column("id", Text, primary_key=True),
    Column("entry", Text, nullable=False),
    Column("changed_at", Double, nullable=False),
)
"""One row per entry added at run time."""

catalogue_version = Table(
    "catalogue_version",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
)
"""One row: how often `catalogue_entries` has changed."""

canaries = Table(
    "canaries",
    metadata,
    Column("model_id", Text, primary_key=True),
    Column("entry", Text, nullable=False),
    Column("share", Double, nullable=False),
    Column("since", Double, nullable=False),
)
"""One row per model of whose calls a share, in per cent, goes to another revision."""

model_generations = Table(
    "model_generations",
    metadata,
    Column("model_id", Text, primary_key=True),
    Column("generation", Integer, nullable=False),
    Column("revision", Text),
    Column("mark", Text),
)
"""One row per model that was ever reloaded; it stays when the model goes, so numbers only grow.

mark: of the deploy that asked last, so that its replicas ask once.
"""

model_reports = Table(
    "model_reports",
    metadata,
    Column("model_id", Text, primary_key=True),
    Column("replica_id", Text, primary_key=True),
    Column("report", Text, nullable=False),
    Column("reported_at", Double, nullable=False),
)
"""One row per model and replica: what it last said."""

model_turns = Table(
    "model_turns",
    metadata,
    Column("model_id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("lease_until", Double, nullable=False),
)
"""One row per model: which replica may reload now."""

schema_programs = Table(
    "schema_programs",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("oldest", Text, nullable=False),
)
"""One row: the last migration of the oldest program that works with these tables."""

usage = Table(
    "usage",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("day", Text, primary_key=True),
    Column("model_id", Text, primary_key=True),
    Column("succeeded", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("cancelled", BigInteger, nullable=False),
    Column("pictures", BigInteger, nullable=False),
    Column("row_steps", BigInteger, nullable=False),
    Column("device_s", Double, nullable=False),
    Column("stored_bytes", BigInteger, nullable=False),
)
"""What jobs cost, summed by key, day (UTC, `2026-11-29`) and model; never removed."""

audit = Table(
    "audit",
    metadata,
    Column("id", _RowId, primary_key=True),
    Column("at", Double, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", Text, nullable=False),
    sqlite_autoincrement=True,
)
"""One row per thing that an operator did, written in its transaction; never removed."""


def _partial(name: str, column: Column[object], *more: Column[object], is_open: bool) -> None:
    """Index the open or the final rows only; open ones are few, whatever the table holds."""
    finished = column.table.c.finished_at
    rows = finished.is_(None) if is_open else finished.is_not(None)
    Index(name, column, *more, sqlite_where=rows, postgresql_where=rows)


_named = jobs.c.idempotency_key.is_not(None)
Index(
    "ix_jobs_idempotency",
    jobs.c.key_id,
    jobs.c.idempotency_key,
    unique=True,
    sqlite_where=_named,
    postgresql_where=_named,
)
_partial("ix_jobs_open", jobs.c.number, jobs.c.id, jobs.c.model_id, is_open=True)
_partial("ix_jobs_finished", jobs.c.finished_at, is_open=False)
_partial("ix_outbox_open", outbox.c.next_at, is_open=True)
_partial("ix_outbox_finished", outbox.c.finished_at, is_open=False)
Index("ix_outbox_job", outbox.c.job_id)
Index("ix_usage_day", usage.c.day)
Index("ix_api_keys_hash", api_keys.c.hash, unique=True)
Index("ix_api_keys_old_hash", api_keys.c.old_hash)
Index("ix_jobs_key", jobs.c.key_id, jobs.c.created_at)
