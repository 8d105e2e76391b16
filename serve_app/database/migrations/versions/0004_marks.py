"""Which deploy asked last for a reload of a model."""

import sqlalchemy as sa
from alembic import op

__all__ = ["downgrade", "upgrade"]

revision: str = "0004"
down_revision: str | None = "0003"


def upgrade() -> None:
    """Add the column."""
    op.add_column("model_generations", sa.Column("mark", sa.Text(), nullable=True))


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("model_generations", "mark")
