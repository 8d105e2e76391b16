"""Bounds of single API keys, their expiry and rotation, and what these are counted by."""

import sqlalchemy as sa
from alembic import op

__all__ = ["downgrade", "upgrade", "works_from"]

revision: str = "0008"
down_revision: str | None = "0007"
works_from: str = "0006"


def upgrade() -> None:
    """Add the columns, empty in all rows there are, and the indexes."""
    op.add_column("api_keys", sa.Column("rules", sa.Text(), nullable=True))
    op.add_column("api_keys", sa.Column("expires_at", sa.Double(), nullable=True))
    op.add_column("api_keys", sa.Column("old_hash", sa.Text(), nullable=True))
    op.add_column("api_keys", sa.Column("old_until", sa.Double(), nullable=True))
    op.add_column("jobs", sa.Column("samples", sa.Integer(), nullable=True))
    op.create_index("ix_api_keys_old_hash", "api_keys", ["old_hash"])
    op.create_index("ix_jobs_key", "jobs", ["key_id", "created_at"])


def downgrade() -> None:
    """Drop them."""
    op.drop_index("ix_jobs_key", table_name="jobs")
    op.drop_index("ix_api_keys_old_hash", table_name="api_keys")
    op.drop_column("jobs", "samples")
    for name in ("old_until", "old_hash", "expires_at", "rules"):
        op.drop_column("api_keys", name)
