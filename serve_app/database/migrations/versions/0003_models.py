"""Entries of the catalogue added at run time, generations of models and what replicas report."""

import sqlalchemy as sa
from alembic import op

__all__ = ["downgrade", "upgrade"]

revision: str = "0003"
down_revision: str | None = "0002"


def upgrade() -> None:
    """Make the tables."""
    _create("catalogue_entries", _text("id"), _text("entry"), _time("changed_at"))
    _create("catalogue_version", _count("id"), _count("version"))
    _create(
        "model_generations",
        _text("model_id"),
        _count("generation"),
        sa.Column("revision", sa.Text(), nullable=True),
    )
    _create(
        "model_reports",
        _text("model_id"),
        _text("replica_id"),
        _text("report"),
        _time("reported_at"),
        keys=2,
    )
    _create("model_turns", _text("model_id"), _text("owner"), _time("lease_until"))


def downgrade() -> None:
    """Drop the tables with all they hold."""
    for table in (
        "model_turns",
        "model_reports",
        "model_generations",
        "catalogue_version",
        "catalogue_entries",
    ):
        op.drop_table(table)


def _create(name: str, *columns: sa.Column[object], keys: int = 1) -> None:
    """Make a table whose first columns are its key."""
    names = [column.name for column in columns[:keys]]
    op.create_table(name, *columns, sa.PrimaryKeyConstraint(*names))


def _text(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.Text(), nullable=False)


def _count(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.Integer(), nullable=False)


def _time(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.Double(), nullable=False)
