"""`Database`: pooled connections, transactions and the clock of the job database.

The only module that knows which database it talks to. Everything else sees SQLAlchemy statements
that run on both, and errors of ours.
"""

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import TypeVar

from sqlalchemy import ColumnElement, Double, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from serve_app import errors
from serve_app.background import Background
from serve_app.config import DatabaseConfig

__all__ = ["Database", "Now", "database_url", "shown_url", "translated", "uncancelled"]

Store = TypeVar("Store")
Result = TypeVar("Result")
_at_work = Background()


class Now(FunctionElement[float]):
    """The database's clock at the start of the statement, in seconds since the epoch."""

    type = Double()
    inherit_cache = True


@compiles(Now, "postgresql")
def _now_postgresql(_element: Now, _compiler: SQLCompiler, **_options: object) -> str:
    # statement_timestamp is stable, unlike clock_timestamp, so indexes on times can be used.
    return "EXTRACT(EPOCH FROM statement_timestamp())::double precision"


@compiles(Now, "sqlite")
def _now_sqlite(_element: Now, _compiler: SQLCompiler, **_options: object) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"  # milliseconds; 2440587.5 is 1970-01-01


def database_url(config: DatabaseConfig) -> URL:
    """Read the plain URL of the settings; the driver is not named yet.

    Raises:
        errors.JobStoreUnavailable: it is none of `sqlite:///PATH` and `postgresql://...`.
    """
    try:
        url = make_url("" if config.url is None else config.url.get_secret_value())
    except (ArgumentError, ValueError):  # their texts repeat the URL, which may hold a password
        raise errors.JobStoreUnavailable("database.url is no URL") from None
    if url.drivername == "sqlite" and url.database and url.database != ":memory:":
        return url
    if url.drivername == "postgresql":
        return url
    raise errors.JobStoreUnavailable("database.url is not sqlite:///PATH or postgresql://...")


def shown_url(config: DatabaseConfig) -> str:
    """Return the URL of the settings with its password masked; raises like `database_url`."""
    return database_url(config).render_as_string(hide_password=True)


@contextmanager
def translated() -> Iterator[None]:
    """Turn what the driver raises into errors of ours."""
    try:
        yield
    except (DataError, UnicodeError) as exc:
        raise errors.InvalidRequest("request", "A text cannot be stored.") from exc
    except (SQLAlchemyError, OSError) as exc:
        raise errors.JobStoreUnavailable(_reason(exc)) from exc


def _reason(exc: Exception) -> str:
    """Word it in one line: what the driver said first; SQLAlchemy adds the statement and a link."""
    said = exc.orig if isinstance(exc, DBAPIError) and exc.orig is not None else exc
    first = next(iter(str(said).splitlines()), "")
    return f"{type(exc).__name__}: {first}"


def uncancelled(store: type[Store]) -> type[Store]:
    """Run every public method of a store to its end even if its caller is cancelled.

    A transaction that is cancelled half way can leave its connection, and with it SQLite's only
    write lock, to the garbage collector. The caller still gets its CancelledError, afterwards.
    """
    for name, method in list(vars(store).items()):
        if inspect.iscoroutinefunction(method) and not name.startswith("_"):
            setattr(store, name, _to_the_end(method))
    return store


def _to_the_end(
    method: Callable[..., Coroutine[None, None, Result]],
) -> Callable[..., Coroutine[None, None, Result]]:
    @functools.wraps(method)
    async def run(*args: object, **kwargs: object) -> Result:
        task = _at_work.start(method(*args, **kwargs))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait([task])
            if not task.cancelled():
                task.exception()  # seen: nobody is left to raise it to
            raise

    return run


class Database:
    """The connections of one process; safe for many tasks of one event loop."""

    def __init__(self, config: DatabaseConfig) -> None:
        url = database_url(config)
        self._is_sqlite = url.drivername == "sqlite"
        # SQLite lets waiting writers poll, so some starve: worst commit 7.3 s with eight of them.
        # Waiting here instead is first come, first served.
        self._writer = asyncio.Lock() if self._is_sqlite else None
        self._engine = _sqlite(url, config) if self._is_sqlite else _postgresql(url, config)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Open a connection to read from."""
        with translated():
            async with self._engine.connect() as connection:
                yield connection

    @asynccontextmanager
    async def write(self, *, is_durable: bool = True) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that is committed at the end, or rolled back on an error.

        Args:
            is_durable: survive also a power cut. Leases need not: a lost one is taken again.
        """
        with translated():
            async with self._writer or nullcontext(), self._engine.connect() as connection:
                await self._begin(connection, is_durable=is_durable)
                yield connection
                await connection.commit()

    def upsert(
        self,
        table: Table,
        row: Mapping[str, object],
        change: Mapping[str, object] | None = None,
        where: ColumnElement[bool] | None = None,
    ) -> postgresql.Insert | sqlite.Insert:
        """Insert a row, or change the one that has its key.

        Args:
            change: what becomes of the row that is there; None: it gets all of `row`.
            where: which row that is there may be changed at all.
        """
        insert = sqlite.insert if self._is_sqlite else postgresql.insert
        keys = list(table.primary_key.columns)
        return (
            insert(table)
            .values(row)
            .on_conflict_do_update(index_elements=keys, set_=change or row, where=where)
        )

    def adding(self, table: Table, sums: Collection[str]) -> postgresql.Insert | sqlite.Insert:
        """Insert a row, or add its values of these columns to the row that has its key."""
        new = (sqlite.insert if self._is_sqlite else postgresql.insert)(table)
        grown = {name: table.c[name] + new.excluded[name] for name in sums}
        return new.on_conflict_do_update(index_elements=list(table.primary_key), set_=grown)

    async def lock(self, connection: AsyncConnection, number: int) -> None:
        """Wait until no other transaction holds the lock; it ends with the transaction."""
        if not self._is_sqlite:  # SQLite's writers exclude each other anyway
            await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({number:d})")

    async def close(self) -> None:
        """Close the connections."""
        with translated():
            await self._engine.dispose()

    async def _begin(self, connection: AsyncConnection, *, is_durable: bool) -> None:
        if self._is_sqlite:
            level = "FULL" if is_durable else "NORMAL"
            await connection.exec_driver_sql(f"PRAGMA synchronous={level}")
            # Plain BEGIN would fail, not wait, when a reader turns writer beside another one.
            await connection.exec_driver_sql("BEGIN IMMEDIATE")
        elif not is_durable:
            await connection.exec_driver_sql("SET LOCAL synchronous_commit TO off")


def _sqlite(url: URL, config: DatabaseConfig) -> AsyncEngine:
    return create_async_engine(
        url.set(drivername="sqlite+aiosqlite"),
        hide_parameters=True,  # they hold prompts, and errors are logged
        pool_size=config.pool_size,
        max_overflow=0,
        pool_timeout=config.busy_timeout_s,
        # No isolation level: the driver begins nothing by itself, `write` does.
        connect_args={"timeout": config.busy_timeout_s, "isolation_level": None},
    )


def _postgresql(url: URL, config: DatabaseConfig) -> AsyncEngine:
    # A server or a paused peer that does not answer must become an error, not a stuck service.
    limit_ms = max(1, round(config.busy_timeout_s * 1000))
    options = f"-c statement_timeout={limit_ms} -c idle_in_transaction_session_timeout={limit_ms}"
    return create_async_engine(
        url.set(drivername="postgresql+psycopg"),
        hide_parameters=True,
        pool_size=config.pool_size,
        max_overflow=0,
        pool_timeout=config.busy_timeout_s,
        pool_pre_ping=True,  # connections that died while idle are replaced unseen
        connect_args={"options": options, "connect_timeout": max(2, round(config.busy_timeout_s))},
    )
