"""Transactions that wait for SQLite's writer are committed together, each for itself."""

import asyncio
import threading
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine, event, select

from serve_app import errors
from serve_app.config import DatabaseConfig
from serve_app.database import open_job_store
from serve_app.database.schema import api_keys
from tests.builders import job_request


@pytest.fixture
async def store(tmp_path):
    store = await open_job_store(DatabaseConfig(url=f"sqlite:///{tmp_path}/jobs.db"))
    yield store
    await store.close()


@contextmanager
def commits():
    """Counts the commits of all engines."""
    made = []

    def count(connection):
        made.append(connection)

    event.listen(Engine, "commit", count)
    try:
        yield made
    finally:
        event.remove(Engine, "commit", count)


async def at_once(database, *works):
    """Have all wait for the writer at the same time; returns what each of them came to."""
    has_begun, may_end = threading.Event(), threading.Event()

    def hold(_connection):
        has_begun.set()
        may_end.wait(5)

    holding = asyncio.create_task(database.write(hold))
    await asyncio.to_thread(has_begun.wait)
    waiting = [asyncio.ensure_future(work) for work in works]
    await asyncio.sleep(0.05)
    may_end.set()
    await holding
    return await asyncio.gather(*waiting, return_exceptions=True)


def insert(name):
    row = {"id": name, "name": name, "prefix": "p", "hash": name, "created_at": 1.0}
    return lambda connection: connection.execute(api_keys.insert().values(row)).rowcount


async def names(database):
    find = select(api_keys.c.id).order_by(api_keys.c.id)
    return await database.read(lambda connection: list(connection.scalars(find)))


async def test_what_waits_is_one_commit(store):
    database = store.database
    with commits() as made:
        done = await at_once(database, *(database.write(insert(name)) for name in "abcdef"))
    assert (done, len(made)) == ([1] * 6, 2)
    assert await names(database) == list("abcdef")


async def test_one_that_fails_undoes_nothing_of_the_others(store):
    database = store.database

    def insert_and_refuse(connection):
        insert("b")(connection)
        raise errors.Overloaded()

    good, refused, twice, last = await at_once(
        database,
        database.write(insert("a")),
        database.write(insert_and_refuse),
        database.write(insert("a")),
        database.write(insert("c")),
    )
    assert (good, last) == (1, 1)
    assert isinstance(refused, errors.Overloaded)
    assert isinstance(twice, errors.JobStoreUnavailable)
    assert "UNIQUE" in str(twice)
    assert await names(database) == ["a", "c"]


async def test_each_sees_what_came_before_it_in_the_same_commit(store):
    done = await at_once(store.database, *(store.add(job_request(), max_open=2) for _ in range(4)))
    assert [type(one).__name__ for one in done] == ["Job", "Job", "Overloaded", "Overloaded"]


async def test_commit_that_fails_is_told_to_all_that_are_in_it(store):
    database = store.database

    made = []

    def second_is_full(connection):
        made.append(connection)
        if len(made) == 2:
            raise OSError("No space left on device")

    event.listen(Engine, "commit", second_is_full)
    try:
        done = await at_once(database, *(database.write(insert(name)) for name in "ab"))
    finally:
        event.remove(Engine, "commit", second_is_full)
    assert [type(one) for one in done] == [errors.JobStoreUnavailable] * 2
    assert await names(database) == []
    assert await database.write(insert("c")) == 1
