"""Jobs are numbered in order of acceptance; their ids say nothing of it any more."""

import sqlalchemy as sa
from alembic import op

from serve_app.jobs.number import FIRST, new_key

__all__ = ["downgrade", "upgrade"]

revision: str = "0005"
down_revision: str | None = "0004"

_OPEN = sa.text("finished_at IS NULL")


def upgrade() -> None:
    """Number the open jobs by their ids, which they keep, and new ones far above all of them."""
    number = sa.Column("number", sa.BigInteger(), nullable=False, server_default="0")
    op.add_column("jobs", number)
    op.execute("UPDATE jobs SET number = id WHERE finished_at IS NULL")
    _index_open(["number", "id", "model_id"])
    numbers = op.create_table(
        "job_numbers",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    newest = op.get_bind().scalar(sa.text("SELECT max(id) FROM jobs")) or 0
    first = newest + FIRST
    op.bulk_insert(numbers, [{"id": 1, "key": new_key(), "first": first, "last": first - 1}])


def downgrade() -> None:
    """Forget the numbers; ids stay."""
    op.drop_table("job_numbers")
    _index_open(["id", "model_id"])
    op.drop_column("jobs", "number")


def _index_open(columns: list[str]) -> None:
    op.drop_index("ix_jobs_open", table_name="jobs")
    op.create_index("ix_jobs_open", "jobs", columns, sqlite_where=_OPEN, postgresql_where=_OPEN)
