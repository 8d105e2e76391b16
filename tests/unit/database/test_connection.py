"""Transactions, durability and what a database that is away looks like."""

import asyncio
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import psycopg
import pytest
from sqlalchemy import select, text

from serve_app import errors
from serve_app.config import DatabaseConfig
from serve_app.database.connection import Database, Now
from serve_app.database.jobs import SqlJobStore
from serve_app.database.migrate import upgrade
from serve_app.database.schema import api_keys
from serve_app.telemetry.actor import acting_as, actor
from tests.builders import job_request

ACCEPT_FOR_EVER = """
import asyncio, sys
from serve_app.config import DatabaseConfig
from serve_app.database.jobs import SqlJobStore
from tests.builders import job_request

async def accept():
    store = SqlJobStore(DatabaseConfig(url=sys.argv[1]))
    while True:
        job = await store.add(job_request(), max_open=10**6)
        print(job.id, flush=True)

asyncio.run(accept())
"""
ROW = {"id": "a", "name": "n", "prefix": "p", "hash": "h", "created_at": 1.0}


@pytest.fixture
def config(empty_database_url):
    return DatabaseConfig(url=empty_database_url, busy_timeout_s=5)


@pytest.fixture
async def database(config):
    database = Database(config)
    yield database
    await database.close()


def insert(row):
    """The work of a transaction."""
    return lambda connection: connection.execute(api_keys.insert().values(row))


async def count(database):
    return await database.read(lambda connection: len(connection.execute(select(api_keys)).all()))


@pytest.mark.parametrize("is_durable", [True, False])
async def test_write_commits_at_the_end(database, is_durable):
    loop = asyncio.get_running_loop()
    seen = []

    def work(connection):
        insert(ROW)(connection)
        seen.append(asyncio.run_coroutine_threadsafe(count(database), loop).result(5))

    await database.write(work, is_durable=is_durable)
    assert (seen, await count(database)) == ([0], 1)


async def test_write_after_an_error_is_rolled_back(database):
    def break_off(connection):
        insert(ROW)(connection)
        raise errors.Overloaded()

    with pytest.raises(errors.Overloaded):
        await database.write(break_off)
    assert await count(database) == 0


async def test_write_whose_caller_is_cancelled_ends_first_and_blocks_nobody(database):
    has_begun, may_end = threading.Event(), threading.Event()

    def work(connection):
        insert(ROW)(connection)
        has_begun.set()
        may_end.wait(5)

    task = asyncio.create_task(database.write(work))
    await asyncio.to_thread(has_begun.wait)
    task.cancel()
    await asyncio.sleep(0.05)
    assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await database.write(insert({**ROW, "id": "b", "hash": "i"}))
    assert await count(database) == 2


async def test_work_that_finds_no_free_connection_in_time_is_never_done(empty_database_url):
    database = Database(DatabaseConfig(url=empty_database_url, busy_timeout_s=0.3, pool_size=1))
    has_begun, may_end = threading.Event(), threading.Event()

    def hold(_connection):
        has_begun.set()
        may_end.wait(5)

    task = asyncio.create_task(database.write(hold))
    await asyncio.to_thread(has_begun.wait)
    with pytest.raises(errors.JobStoreUnavailable, match="no connection was free"):
        await database.write(insert(ROW))
    may_end.set()
    await task
    assert await count(database) == 0
    await database.close()


async def test_caller_that_is_cancelled_while_it_waits_for_a_connection_is_cancelled(config):
    database = Database(config.model_copy(update={"busy_timeout_s": 1, "pool_size": 1}))
    may_end = threading.Event()
    holding = asyncio.create_task(database.write(lambda _connection: may_end.wait(5)))
    await asyncio.sleep(0.05)
    waiting = asyncio.create_task(database.write(insert(ROW)))
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    may_end.set()
    await holding
    await database.close()


async def test_database_that_was_closed_is_unavailable(config):
    database = Database(config)
    await database.close()
    with pytest.raises(errors.JobStoreUnavailable, match="closed"):
        await count(database)


async def test_work_knows_the_context_of_its_caller(database):
    with acting_as("cli:somebody"):
        assert await database.read(lambda _connection: actor()) == "cli:somebody"


async def test_now_is_the_clock_of_the_machine(database):
    before = time.time()
    now = await database.read(lambda connection: connection.scalar(select(Now())))
    assert before - 0.1 < now < time.time() + 0.1


@pytest.mark.parametrize("is_durable", [True, False])
async def test_durability_is_what_was_asked_for(config, database, is_durable):
    setting = "synchronous" if "sqlite" in config.url.get_secret_value() else "synchronous_commit"
    query = f"PRAGMA {setting}" if setting == "synchronous" else f"SHOW {setting}"

    def ask(connection):
        return connection.scalar(text(query))

    asked_for = (2, "on") if is_durable else (1, "off")
    assert await database.write(ask, is_durable=is_durable) in asked_for
    assert await database.write(ask) in (2, "on")


async def test_errors_show_no_values(database):
    def insert_twice(connection):
        for _ in range(2):
            insert({**ROW, "name": "a-secret"})(connection)

    with pytest.raises(errors.JobStoreUnavailable) as caught:
        await database.write(insert_twice)
    assert "a-secret" not in str(caught.value)


async def test_sqlite_that_another_process_locks_is_unavailable_after_the_timeout(tmp_path):
    config = DatabaseConfig(url=f"sqlite:///{tmp_path}/jobs.db", busy_timeout_s=0.1)
    await asyncio.to_thread(upgrade, config)
    store = SqlJobStore(config)
    other = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(errors.JobStoreUnavailable):
        await store.add(job_request(), max_open=5)
    assert await store.get(1) is None  # readers are not locked out
    other.execute("ROLLBACK")
    other.close()
    assert await store.add(job_request(), max_open=5)
    await store.close()


async def test_sqlite_of_eight_writers_starves_none(tmp_path):
    config = DatabaseConfig(url=f"sqlite:///{tmp_path}/jobs.db")
    await asyncio.to_thread(upgrade, config)
    store = SqlJobStore(config)

    async def slowest_s():
        slowest = 0.0
        for _ in range(20):
            began = time.perf_counter()
            await store.add(job_request(), max_open=10_000)
            slowest = max(slowest, time.perf_counter() - began)
        return slowest

    begun = time.perf_counter()
    slowest = max(await asyncio.gather(*(slowest_s() for _ in range(8))))
    all_s = time.perf_counter() - begun  # who starves waits for most of it
    assert slowest < max(3, all_s / 2)
    await store.close()


def accept_until_killed(url):
    """Ids of the jobs that a process acknowledged before it was killed."""
    command = [sys.executable, "-c", ACCEPT_FOR_EVER, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        seen = [int(process.stdout.readline()) for _ in range(20)]
        process.send_signal(signal.SIGKILL)
        return seen + [int(line) for line in process.stdout.read().split("\n")[:-1]]


@pytest.mark.slow
async def test_jobs_acknowledged_before_a_kill_are_there(config):
    seen = await asyncio.to_thread(accept_until_killed, config.url.get_secret_value())
    store = SqlJobStore(config)
    claimed = {job.id for job in await store.claim("a", 10, 10_000)}
    await store.close()
    assert set(seen) <= claimed


@pytest.mark.slow
@pytest.mark.postgres
async def test_store_answers_again_after_the_server_crashed(postgres_server, postgres_url):
    config = DatabaseConfig(url=postgres_url, busy_timeout_s=2)
    await asyncio.to_thread(upgrade, config)
    store = SqlJobStore(config)
    job = await store.add(job_request(), max_open=5)
    await asyncio.to_thread(postgres_server.stop)
    try:
        with pytest.raises(errors.JobStoreUnavailable):
            await store.get(job.id)
    finally:
        await asyncio.to_thread(postgres_server.start)
    assert await store.get(job.id) == job
    await store.close()


@pytest.mark.postgres
async def test_connections_that_were_killed_while_idle_are_replaced_unseen(postgres_url):
    config = DatabaseConfig(url=postgres_url)
    await asyncio.to_thread(upgrade, config)
    store = SqlJobStore(config)
    job = await store.add(job_request(), max_open=5)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert await store.get(job.id) == job
    await store.close()


@pytest.mark.postgres
async def test_connection_that_has_other_news_is_kept(postgres_url):
    database = Database(DatabaseConfig(url=postgres_url))

    def backend(connection):
        return connection.connection.dbapi_connection.info.backend_pid

    def listen(connection):
        connection.exec_driver_sql("LISTEN news")
        return backend(connection)

    listening = await database.write(listen)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("NOTIFY news")
    assert await database.read(backend) == listening
    await database.close()


@pytest.mark.postgres
async def test_reading_takes_no_transaction(postgres_url):
    """Each would be two more ways to the server and back."""
    database = Database(DatabaseConfig(url=postgres_url))

    def status(connection):
        connection.exec_driver_sql("SELECT 1")
        return connection.connection.dbapi_connection.info.transaction_status.name

    assert await database.read(status) == "IDLE"
    assert await database.write(status) == "INTRANS"  # on the same connection
    assert await database.read(status) == "IDLE"
    await database.close()


@pytest.mark.postgres
async def test_connections_notice_a_network_that_says_nothing(postgres_url):
    """By the driver's options, since the tests' server listens on no network."""
    url = f"{postgres_url}&keepalives_interval=7"
    database = Database(DatabaseConfig(url=url, busy_timeout_s=9))

    def options(connection):
        return connection.connection.dbapi_connection.info.get_parameters()

    found = await database.read(options)
    await database.close()
    assert (found["keepalives_idle"], found["tcp_user_timeout"]) == ("30", "9000")
    assert found["keepalives_interval"] == "7"  # the operator's


async def test_sqlite_begins_nothing_by_itself_after_reading(tmp_path):
    database = Database(DatabaseConfig(url=f"sqlite:///{tmp_path}/jobs.db", pool_size=1))
    statements = []

    def look(connection):
        link = connection.connection.dbapi_connection
        link.set_trace_callback(statements.append)
        return link.isolation_level

    assert await database.read(look) is None
    assert await database.read(look) is None
    assert await database.write(look) is None
    assert statements == ["PRAGMA synchronous=FULL", "BEGIN IMMEDIATE", "COMMIT"]  # the writing
    await database.close()


@pytest.mark.postgres
async def test_lock_that_a_stuck_peer_holds_is_unavailable_after_the_timeout(postgres_url):
    config = DatabaseConfig(url=postgres_url, busy_timeout_s=1)  # of each statement afterwards too
    await asyncio.to_thread(upgrade, config)
    store = SqlJobStore(config)
    with psycopg.connect(postgres_url) as peer:
        peer.execute("LOCK TABLE jobs")
        with pytest.raises(errors.JobStoreUnavailable):
            await store.add(job_request(), max_open=5)
    assert await store.add(job_request(), max_open=5)
    await store.close()


async def test_longest_wait_for_a_connection_is_told_once(empty_database_url):
    database = Database(DatabaseConfig(url=empty_database_url, pool_size=1))
    await database.read(lambda _: None)
    assert database.longest_wait_s() < 5  # it had to be opened
    may_end = threading.Event()
    first = asyncio.create_task(database.read(lambda _: may_end.wait(5)))
    second = asyncio.create_task(database.read(lambda _: None))
    await asyncio.sleep(0)
    await asyncio.sleep(0.3)
    may_end.set()
    await asyncio.gather(first, second)
    assert 0.2 < database.longest_wait_s() < 5
    assert database.longest_wait_s() == 0
    await database.close()
