"""`upgrade`: bring the tables of the job database up to date. Blocking; call it before a store.

Every process may call it at its start: one does the work under a lock, the others find it done. All
of it is one transaction, on SQLite too, so a process that dies leaves the old tables.

To change a table: edit `schema.py` and add `migrations/versions/NNNN_what.py` by hand. A test fails
until both say the same on both databases.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from serve_app import errors
from serve_app.config import DatabaseConfig
from serve_app.database.connection import database_url, translated

__all__ = ["upgrade"]

_MIGRATE_LOCK = 0x6472_6561_6D00  # "dream" 00; see the other one in `sql`


def upgrade(config: DatabaseConfig) -> None:
    """Create or upgrade the tables; makes the folder of an SQLite file.

    Raises:
        errors.JobStoreUnavailable: no connection, or a newer version wrote the database.
    """
    url = database_url(config)
    is_sqlite = url.drivername == "sqlite"
    with translated():
        engine = _sqlite(url, config) if is_sqlite else _postgresql(url, config)
        with engine.begin() as connection:
            # Both hold until the commit, so the version is read by one process at a time.
            connection.exec_driver_sql(
                "BEGIN IMMEDIATE" if is_sqlite else f"SELECT pg_advisory_xact_lock({_MIGRATE_LOCK})"
            )
            _run(connection)


def _run(connection: Connection) -> None:
    """Run the migrations that are missing."""
    config = Config()
    config.set_main_option("path_separator", "os")
    folder = str(Path(__file__).parent / "migrations")
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as exc:
        raise errors.JobStoreUnavailable(f"the database does not fit: {exc}") from exc


def _sqlite(url: URL, config: DatabaseConfig) -> Engine:
    """Open a file, made with its folder if need be, and switch it to the write-ahead log."""
    Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        url,
        poolclass=NullPool,
        # No isolation level: the driver begins nothing by itself, so DDL is in our transaction.
        connect_args={"timeout": config.busy_timeout_s, "isolation_level": None},
    )
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")  # stays with the file
    return engine


def _postgresql(url: URL, config: DatabaseConfig) -> Engine:
    timeout_s = max(2, round(config.busy_timeout_s))
    return create_engine(
        url.set(drivername="postgresql+psycopg"),
        poolclass=NullPool,
        connect_args={"connect_timeout": timeout_s},
    )
