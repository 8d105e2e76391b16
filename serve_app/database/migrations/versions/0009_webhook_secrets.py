"""Secrets that the webhooks of single API keys are signed with."""

import sqlalchemy as sa
from alembic import op

__all__ = ["downgrade", "upgrade", "works_from"]

revision: str = "0009"
down_revision: str | None = "0008"
works_from: str = "0006"


def upgrade() -> None:
    """Add the columns, empty in all rows there are."""
    op.add_column("api_keys", sa.Column("webhook_secret", sa.Text(), nullable=True))
    op.add_column("outbox", sa.Column("key_id", sa.Text(), nullable=True))


def downgrade() -> None:
    """Drop them."""
    op.drop_column("outbox", "key_id")
    op.drop_column("api_keys", "webhook_secret")
