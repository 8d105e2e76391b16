"""Which programs work with the tables, for those that do not know the last migration."""

import sqlalchemy as sa
from alembic import op

__all__ = ["downgrade", "upgrade", "works_from"]

revision: str = "0006"
down_revision: str | None = "0005"
works_from: str = "0006"  # older programs take every later version for a foreign one


def upgrade() -> None:
    """Make the table; `database.migrate` writes its row."""
    op.create_table(
        "schema_programs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("oldest", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("schema_programs")
