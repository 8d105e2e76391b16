"""Whose turn a job is: the weight of its key, and the priority that the call asked for."""

import sqlalchemy as sa
from alembic import op

__all__ = ["downgrade", "upgrade", "works_from"]

revision: str = "0010"
down_revision: str | None = "0009"
works_from: str = "0006"


def upgrade() -> None:
    """Add the columns, empty in all rows there are."""
    op.add_column("jobs", sa.Column("weight", sa.Double(), nullable=True))
    op.add_column("jobs", sa.Column("priority", sa.Integer(), nullable=True))


def downgrade() -> None:
    """Drop them."""
    op.drop_column("jobs", "priority")
    op.drop_column("jobs", "weight")
