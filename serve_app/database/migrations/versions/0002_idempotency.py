"""Jobs by the idempotency key that their call came with."""

import sqlalchemy as sa
from alembic import op

__all__ = ["downgrade", "upgrade"]

revision: str = "0002"
down_revision: str | None = "0001"

_NAMED = sa.text("idempotency_key IS NOT NULL")


def upgrade() -> None:
    """Add the columns, empty in all rows there are, and their index."""
    op.add_column("jobs", sa.Column("idempotency_key", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("idempotency_digest", sa.Text(), nullable=True))
    op.create_index(
        "ix_jobs_idempotency",
        "jobs",
        ["key_id", "idempotency_key"],
        unique=True,
        sqlite_where=_NAMED,
        postgresql_where=_NAMED,
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_index("ix_jobs_idempotency", table_name="jobs")
    op.drop_column("jobs", "idempotency_digest")
    op.drop_column("jobs", "idempotency_key")
