"""The span of the call that brought a job, for whoever goes on with the job."""

import sqlalchemy as sa
from alembic import op

__all__ = ["downgrade", "upgrade", "works_from"]

revision: str = "0011"
down_revision: str | None = "0010"
works_from: str = "0006"


def upgrade() -> None:
    """Add the column, empty in all rows there are."""
    op.add_column("jobs", sa.Column("traceparent", sa.Text(), nullable=True))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("jobs", "traceparent")
