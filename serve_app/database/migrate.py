"""Which version the tables of the job database have, and how they get to the one of this program.

Blocking; called before a store is opened. Every process may call `prepare` at its start: one does
the work under a lock, the others find it done. All of it is one transaction, on SQLite too, so a
process that dies leaves the old tables.

To change a table: edit `schema.py` and add `migrations/versions/NNNN_what.py` by hand. A test fails
until both say the same on both databases, and one that holds the rule of `CONTRIBUTING.md`: what
is added must not disturb programs that do not know it. `works_from` of a migration names the oldest
of them, and the database remembers it, so that an older program knows whether it may go on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sqlalchemy import (
    Connection,
    Engine,
    column,
    create_engine,
    delete,
    insert,
    inspect,
    select,
    table,
)
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from serve_app import errors
from serve_app.config import DatabaseConfig
from serve_app.database.connection import database_url
from serve_app.database.faults import translated
from serve_app.database.schema import schema_programs

__all__ = ["Fitness", "SchemaStatus", "connected", "prepare", "require", "status", "upgrade"]

_MIGRATE_LOCK = 0x6472_6561_6D00  # "dream" 00; see the other ones in `jobs` and `models`
_FOLDER = Path(__file__).parent / "migrations"
# As the names of the files say it, oldest first; alembic would import them all to tell.
_VERSIONS = sorted(path.stem.partition("_")[0] for path in _FOLDER.glob("versions/[0-9]*.py"))
_VERSION = table("alembic_version", column("version_num"))  # alembic's own


class Fitness(StrEnum):
    """How the tables suit this program."""

    EMPTY = "empty"  # there are none
    OLDER = "older"  # `upgrade` is due
    CURRENT = "current"
    NEWER = "newer"  # and this program works with them
    UNFIT = "unfit"  # newer, and it does not


_ADVICE = {
    Fitness.EMPTY: "the database has no tables yet: run `dreamserve db upgrade`",
    Fitness.OLDER: "the tables of the database are older than this program ({version}, not "
    "{wanted}): run `dreamserve db upgrade`",
    Fitness.UNFIT: "the tables of the database are too new for this program ({version}, not "
    "{wanted}): run the newer version again, or restore the backup that was made before",
}


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """version: of the last migration that ran; wanted: the last one that this program has."""

    version: str | None
    wanted: str
    fitness: Fitness

    @property
    def advice(self) -> str | None:
        """What to do before this program can work; None: nothing."""
        text = _ADVICE.get(self.fitness)
        return text and text.format(version=self.version, wanted=self.wanted)

    def check(self) -> None:
        """Return if this program can work with the tables.

        Raises:
            errors.JobStoreUnavailable: it cannot; it says what to do.
        """
        if self.advice is not None:
            raise errors.JobStoreUnavailable(self.advice)


def prepare(config: DatabaseConfig) -> None:
    """Make the tables ready for a service that starts; `database.auto_upgrade` says how.

    Raises:
        errors.JobStoreUnavailable: no connection, or the tables are not those of this program.
    """
    if examine(config):
        upgrade(config)


def examine(config: DatabaseConfig) -> bool:
    """Return whether `prepare` would upgrade the tables; changes nothing. Raises as it does."""
    is_sqlite = database_url(config).drivername == "sqlite"
    upgrades = is_sqlite if config.auto_upgrade is None else config.auto_upgrade
    found = status(config)
    if upgrades and found.fitness in (Fitness.EMPTY, Fitness.OLDER):
        return True
    found.check()
    return False


def require(config: DatabaseConfig) -> None:
    """Make the tables ready for an operator's command, which changes none that there are.

    Raises:
        errors.JobStoreUnavailable: no connection, or the tables are not those of this program.
    """
    found = status(config)
    if found.fitness is Fitness.EMPTY and database_url(config).drivername == "sqlite":
        upgrade(config)
        return
    found.check()


def status(config: DatabaseConfig) -> SchemaStatus:
    """Look which version the tables have; changes nothing.

    Raises:
        errors.JobStoreUnavailable: no connection.
    """
    url = database_url(config)
    if url.drivername == "sqlite" and not Path(str(url.database)).exists():
        return SchemaStatus(None, _VERSIONS[-1], Fitness.EMPTY)
    with connected(config) as connection:
        return _status(connection)


def upgrade(config: DatabaseConfig) -> None:
    """Create or upgrade the tables; makes the folder of an SQLite file.

    Raises:
        errors.JobStoreUnavailable: no connection, or a newer version wrote the database.
    """
    is_sqlite = database_url(config).drivername == "sqlite"
    if is_sqlite:
        _make_sqlite(config)
    with connected(config) as connection:
        # Both hold until the commit, so the version is read by one process at a time.
        connection.exec_driver_sql(
            "BEGIN IMMEDIATE" if is_sqlite else f"SELECT pg_advisory_xact_lock({_MIGRATE_LOCK})"
        )
        _run(connection)


@contextmanager
def connected(config: DatabaseConfig) -> Iterator[Connection]:
    """Open a connection whose work is committed at the end.

    Raises:
        errors.JobStoreUnavailable: there is none.
    """
    url = database_url(config)
    with translated():
        engine = (_sqlite if url.drivername == "sqlite" else _postgresql)(url, config)
        with engine.begin() as connection:
            yield connection


def _run(connection: Connection) -> None:
    """Run the migrations that are missing, and note which programs work with the result."""
    found = _status(connection)
    if found.fitness not in (Fitness.EMPTY, Fitness.OLDER):
        found.check()
        return
    # Of the processes that look at the tables one changes them: 7 MB and 0.1 s for each other one.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config()
    config.set_main_option("path_separator", "os")
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    newest = ScriptDirectory.from_config(config).get_revision("head").module
    oldest: str = newest.works_from
    connection.execute(delete(schema_programs))
    connection.execute(insert(schema_programs).values(id=1, oldest=oldest))


def _status(connection: Connection) -> SchemaStatus:
    version: str | None = None
    if inspect(connection).has_table(_VERSION.name):
        version = connection.scalar(select(_VERSION.c.version_num))
    return SchemaStatus(version, _VERSIONS[-1], _fitness(connection, version))


def _fitness(connection: Connection, version: str | None) -> Fitness:
    if version is None:
        return Fitness.EMPTY
    if version in _VERSIONS:
        return Fitness.CURRENT if version == _VERSIONS[-1] else Fitness.OLDER
    if not inspect(connection).has_table(schema_programs.name):
        return Fitness.UNFIT
    oldest = connection.scalar(select(schema_programs.c.oldest))
    return Fitness.NEWER if oldest in _VERSIONS else Fitness.UNFIT


def _make_sqlite(config: DatabaseConfig) -> None:
    """Make a file, with its folder if need be, and switch it to the write-ahead log."""
    url = database_url(config)
    with translated():
        Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
        with _sqlite(url, config).connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")  # stays with the file


def _sqlite(url: URL, config: DatabaseConfig) -> Engine:
    return create_engine(
        url,
        poolclass=NullPool,
        # No isolation level: the driver begins nothing by itself, so DDL is in our transaction.
        connect_args={"timeout": config.busy_timeout_s, "isolation_level": None},
    )


def _postgresql(url: URL, config: DatabaseConfig) -> Engine:
    timeout_s = max(2, round(config.busy_timeout_s))
    return create_engine(
        url.set(drivername="postgresql+psycopg"),
        poolclass=NullPool,
        connect_args={"connect_timeout": timeout_s},
    )
