"""`Database`: pooled connections, transactions and the clock of the job database.

The only module that knows which database it talks to. Everything else sees SQLAlchemy statements
that run on both, and errors of ours.
"""

import asyncio
import contextvars
import select
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Double, Engine, Table, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, InvalidatePoolError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from serve_app import errors
from serve_app.config import DatabaseConfig
from serve_app.database.faults import translated
from serve_app.database.writer import Writer

if TYPE_CHECKING:
    import psycopg

__all__ = ["Database", "Now", "database_url", "shown_url"]

Result = TypeVar("Result")
_TOGETHER = 64  # transactions of a commit, which hold the lock for some 0.1 s


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


class Database:
    """The connections of one process; safe for many tasks of one event loop.

    A transaction is a function that gets a connection and runs in a thread of ours, so that no
    statement of it costs a way to another thread and back: with asynchronous drivers a job's
    statements took 10.2 ms of CPU, and 3.2 so. It runs to its end whatever becomes of its caller:
    one that is broken off half way could keep SQLite's only write lock.
    """

    def __init__(self, config: DatabaseConfig) -> None:
        url = database_url(config)
        self._is_sqlite = url.drivername == "sqlite"
        self._engine = _sqlite(url, config) if self._is_sqlite else _postgresql(url, config)
        self._reading = self._engine
        if not self._is_sqlite:
            # Its driver would begin and end a transaction for each, two ways there and back.
            # SQLite's begins none, and SQLAlchemy would make it do so when it takes this back.
            self._reading = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._patience_s = config.busy_timeout_s
        self._waited_s = 0.0
        self._readers = ThreadPoolExecutor(config.pool_size, "database")
        # SQLite lets waiting writers poll, so some starve: worst commit 7.3 s with eight of them.
        # One thread for all of them is first come, first served.
        self._writer = Writer(self._transaction, _TOGETHER) if self._is_sqlite else None

    async def read(self, work: Callable[[Connection], Result]) -> Result:
        """Run `work` on a connection to read from.

        Raises:
            errors.JobStoreUnavailable: no connection, or none was free in time.
        """
        return await self._end_of(partial(self._submit, partial(self._read, self._timed(work))))

    async def write(
        self, work: Callable[[Connection], Result], *, is_durable: bool = True
    ) -> Result:
        """Run `work` in a transaction, committed at its end, rolled back if it raises.

        Args:
            work: what it does.
            is_durable: survive also a power cut. Leases need not: a lost one is taken again.

        Raises:
            errors.JobStoreUnavailable: as `read`.
        """
        work = self._timed(work)
        if self._writer is not None:
            return await self._end_of(partial(self._writer.submit, work, is_durable=is_durable))
        write = partial(self._write, work, is_durable=is_durable)
        return await self._end_of(partial(self._submit, write))

    def longest_wait_s(self) -> float:
        """Return the longest that any work waited for a connection since the last question."""
        waited_s, self._waited_s = self._waited_s, 0.0
        return waited_s

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

    def lock(self, connection: Connection, number: int) -> None:
        """Wait until no other transaction holds the lock; it ends with the transaction."""
        if not self._is_sqlite:  # SQLite's writers exclude each other anyway
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({number:d})")

    async def close(self) -> None:
        """Finish what is at work and close the connections."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._readers.shutdown()
        with translated():
            self._engine.dispose()

    def _timed(self, work: Callable[[Connection], Result]) -> Callable[[Connection], Result]:
        """Note how long the work waits until it has a connection, and may write if it wants to."""
        asked_at = time.monotonic()

        def begin(connection: Connection) -> Result:
            self._waited_s = max(self._waited_s, time.monotonic() - asked_at)
            return work(connection)

        return begin

    def _submit(self, work: Callable[[], Result]) -> "Future[Result]":
        return self._readers.submit(contextvars.copy_context().run, work)

    async def _end_of(self, submit: Callable[[], "Future[Result]"]) -> Result:
        """Wait for work in a thread; if it has not begun in time it is taken back."""
        try:
            begun = submit()
        except RuntimeError as exc:  # no new threads, at the end of a process
            raise errors.JobStoreUnavailable("the connections are closed") from exc
        loop = asyncio.get_running_loop()
        giving_up = loop.call_later(self._patience_s, begun.cancel)  # no more once it runs
        ended = asyncio.wrap_future(begun)
        try:
            return await asyncio.shield(ended)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if begun.cancelled() and task is not None and not task.cancelling():
                raise errors.JobStoreUnavailable("no connection was free in time") from None
            await asyncio.wait([ended])
            if not ended.cancelled():
                ended.exception()  # seen: nobody is left to raise it to
            raise
        finally:
            giving_up.cancel()

    def _read(self, work: Callable[[Connection], Result]) -> Result:
        with translated(), self._reading.connect() as connection:
            return work(connection)

    def _write(self, work: Callable[[Connection], Result], *, is_durable: bool) -> Result:
        with self._transaction(is_durable=is_durable) as connection:
            return work(connection)

    @contextmanager
    def _transaction(self, *, is_durable: bool) -> Iterator[Connection]:
        with translated(), self._engine.connect() as connection:
            self._begin(connection, is_durable=is_durable)
            yield connection
            try:
                connection.commit()
            except BaseException:
                connection.invalidate()  # SQLAlchemy would leave it in the pool, in the transaction
                raise

    def _begin(self, connection: Connection, *, is_durable: bool) -> None:
        if self._is_sqlite:
            level = "FULL" if is_durable else "NORMAL"
            connection.exec_driver_sql(f"PRAGMA synchronous={level}")
            # Plain BEGIN would fail, not wait, when a reader turns writer beside another one.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        elif not is_durable:
            connection.exec_driver_sql("SET LOCAL synchronous_commit TO off")


def _sqlite(url: URL, config: DatabaseConfig) -> Engine:
    return create_engine(
        url,
        hide_parameters=True,  # they hold prompts, and errors are logged
        pool_size=config.pool_size + 1,  # that of the writer
        max_overflow=0,
        # No isolation level: the driver begins nothing by itself, `write` does.
        connect_args={
            "timeout": config.busy_timeout_s,
            "isolation_level": None,
            "check_same_thread": False,
        },
    )


def _postgresql(url: URL, config: DatabaseConfig) -> Engine:
    # A server or a paused peer that does not answer must become an error, not a stuck service.
    limit_ms = max(1, round(config.busy_timeout_s * 1000))
    options = f"-c statement_timeout={limit_ms} -c idle_in_transaction_session_timeout={limit_ms}"
    # What lies between forgets idle connections and tells nobody, and a lost server says nothing.
    network = {
        "keepalives_idle": "30",
        "keepalives_interval": "10",
        "tcp_user_timeout": str(max(2000, limit_ms)),
    }
    engine = create_engine(
        url.set(drivername="postgresql+psycopg", query=network | dict(url.query)),
        hide_parameters=True,
        pool_size=config.pool_size,
        max_overflow=0,
        connect_args={"options": options, "connect_timeout": max(2, round(config.busy_timeout_s))},
    )
    event.listen(engine, "checkout", _check_peer)
    return engine


def _check_peer(link: "psycopg.Connection[Any]", *_unused: object) -> None:
    """Replace connections that the server closed while they were idle, unseen by the caller.

    What an idle connection has to read is most likely the server's farewell. To look costs no way
    to the server and back, which `pool_pre_ping` takes for each piece of work.
    """
    # Loaded by now; with SQLite nothing needs its 5 MB.
    from psycopg.pq import ExecStatus  # noqa: PLC0415

    poll = select.poll()
    if not link.closed:
        poll.register(link.fileno(), select.POLLIN)
    if link.closed or (poll.poll(0) and link.pgconn.exec_(b"").status != ExecStatus.EMPTY_QUERY):
        raise InvalidatePoolError
