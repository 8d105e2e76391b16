"""Every implementation of the job, outbox, key and model stores, behind one fixture.

Listed in `pytest_plugins` of the root conftest. `bench.advance` makes time pass without waiting:
the twins in memory get a later clock, the rows of a database are moved into the past.
"""

import shutil

import psycopg
import pytest
from sqlalchemy import Double, update

from serve_app.config import DatabaseConfig
from serve_app.database.jobs import SqlJobStore
from serve_app.database.keys import SqlKeyStore
from serve_app.database.migrate import upgrade
from serve_app.database.models import SqlModelStore
from serve_app.database.outbox import SqlOutbox
from serve_app.database.schema import metadata
from serve_app.database.usage import SqlUsageStore
from serve_app.jobs.protocol import Lease
from serve_app.testing.jobs import MemoryJobStore, MemoryKeyStore
from serve_app.testing.models import MemoryModelStore
from tests.builders import job_request

__all__ = ["MemoryBench", "SqlBench"]


class MemoryBench:
    """The twins in memory."""

    def __init__(self):
        self.now = 1_700_000_000.0
        self.keys = MemoryKeyStore(lambda: self.now)
        self.jobs = MemoryJobStore(lambda: self.now, self.keys)
        self.outbox = self.jobs.outbox
        self.usage = self.jobs.costs
        self.models = MemoryModelStore(lambda: self.now, self.jobs)

    async def advance(self, seconds):
        self.now += seconds

    async def reopen(self):
        await self.jobs.close()

    async def job(self, **changes):
        """Accept a job."""
        return await self.jobs.add(job_request(**changes), max_open=10_000)

    async def claimed(self, owner="a", lease_s=10.0, **changes):
        """Accept a job and take the lease on it."""
        lease = Lease(owner, lease_s)
        return await self.jobs.add(job_request(**changes), max_open=10_000, lease=lease)


class SqlBench(MemoryBench):
    """The stores over one database."""

    def __init__(self, url):
        self.config = DatabaseConfig(url=url)
        self._open()

    def _open(self):
        self.jobs = SqlJobStore(self.config)
        self.outbox = SqlOutbox(self.jobs.database)
        self.usage = SqlUsageStore(self.jobs.database)
        self.keys = SqlKeyStore(self.jobs.database)
        self.models = SqlModelStore(self.jobs.database)

    async def advance(self, seconds):
        def move(connection):
            for table in metadata.tables.values():
                times = [column for column in table.c if isinstance(column.type, Double)]
                kept = ("progress", "device_s", "weight", "share")
                past = {column: column - seconds for column in times if column.name not in kept}
                if past:
                    connection.execute(update(table).values(past))

        await self.jobs.database.write(move)

    async def reopen(self):
        await self.jobs.close()
        self._open()


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory):
    """A file with empty tables; copying it is faster than the migrations."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    upgrade(DatabaseConfig(url=f"sqlite:///{path}"))
    return path


@pytest.fixture(scope="session")
def _postgres_with_tables(shared_postgres_url):
    upgrade(DatabaseConfig(url=shared_postgres_url))
    return shared_postgres_url


def _empty_sqlite(request):
    path = request.getfixturevalue("tmp_path") / "jobs.db"
    shutil.copy(request.getfixturevalue("_sqlite_template"), path)
    return f"sqlite:///{path}"


def _empty_postgres(request):
    url = request.getfixturevalue("_postgres_with_tables")
    with psycopg.connect(url) as connection:
        emptied = metadata.tables.keys() - {"job_numbers", "schema_programs"}  # made by migrations
        connection.execute(f"TRUNCATE {', '.join(emptied)} RESTART IDENTITY")
    return url


_POSTGRES = pytest.param("postgresql", marks=pytest.mark.postgres)


def _empty_database(request, name):
    return _empty_sqlite(request) if name == "sqlite" else _empty_postgres(request)


@pytest.fixture(params=["sqlite", _POSTGRES])
def empty_database_url(request):
    """Each kind of database in turn, with empty tables."""
    return _empty_database(request, request.param)


@pytest.fixture(params=["memory", "sqlite", _POSTGRES])
async def bench(request):
    """Each implementation in turn, empty."""
    if request.param == "memory":
        yield MemoryBench()
        return
    bench = SqlBench(_empty_database(request, request.param))
    yield bench
    await bench.jobs.close()
