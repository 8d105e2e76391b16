"""What jobs cost by key, day and model, and what operators did."""

import sqlalchemy as sa
from alembic import op

__all__ = ["downgrade", "upgrade", "works_from"]

revision: str = "0007"
down_revision: str | None = "0006"
works_from: str = "0006"

_COUNTS = ("succeeded", "failed", "cancelled", "pictures", "row_steps", "stored_bytes")


def upgrade() -> None:
    """Make the tables; jobs that ended before are not counted."""
    op.create_table(
        "usage",
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("day", sa.Text(), nullable=False),
        sa.Column("model_id", sa.Text(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in _COUNTS),
        sa.Column("device_s", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("key_id", "day", "model_id"),
    )
    op.create_index("ix_usage_day", "usage", ["day"])
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    """Drop the tables with all they hold."""
    op.drop_table("audit")
    op.drop_table("usage")
