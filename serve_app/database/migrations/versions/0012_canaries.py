"""Canaries of models, and which jobs go to them."""

import sqlalchemy as sa
from alembic import op

__all__ = ["downgrade", "upgrade", "works_from"]

revision: str = "0012"
down_revision: str | None = "0011"
works_from: str = "0006"


def upgrade() -> None:
    """Add the table and the column; no job that there is goes to a canary."""
    op.create_table(
        "canaries",
        sa.Column("model_id", sa.Text(), primary_key=True),
        sa.Column("entry", sa.Text(), nullable=False),
        sa.Column("share", sa.Double(), nullable=False),
        sa.Column("since", sa.Double(), nullable=False),
    )
    op.add_column("jobs", sa.Column("canary", sa.Integer(), nullable=True))


def downgrade() -> None:
    """Drop them."""
    op.drop_column("jobs", "canary")
    op.drop_table("canaries")
