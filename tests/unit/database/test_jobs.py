"""What is special about jobs in a database."""

import asyncio
import json

import pytest
from sqlalchemy import Connection, insert, update

from serve_app import errors
from serve_app.api.replies.webhook import WebhookWriter
from serve_app.config import DatabaseConfig, JobsConfig
from serve_app.database import open_job_store
from serve_app.database.models import SqlModelStore
from serve_app.database.outbox import SqlOutbox
from serve_app.database.schema import catalogue_entries, jobs
from serve_app.jobs import Driver
from serve_app.models import AddOn
from serve_app.testing.graph import FakeGraph
from serve_app.types import JobState
from tests.builders import job_request


@pytest.fixture
async def store(tmp_path):
    store = await open_job_store(DatabaseConfig(url=f"sqlite:///{tmp_path}/var/jobs.db"))
    yield store
    await store.close()


async def spoil(store, job_id, **fields):
    """Write into a job's row what no version of ours reads."""
    row = json.dumps(fields) if fields else '{"from": "another version"}'
    change = update(jobs).where(jobs.c.id == job_id).values({"request": row})
    await store.database.write(lambda connection: connection.execute(change))


async def row_of(store, job_id):
    find = jobs.select().where(jobs.c.id == job_id)
    return await store.database.read(lambda connection: connection.execute(find).one())


async def age(store, job_id, seconds):
    times = {"created_at": jobs.c.created_at - seconds, "not_before": jobs.c.not_before - seconds}
    change = update(jobs).where(jobs.c.id == job_id).values(times)
    await store.database.write(lambda connection: connection.execute(change))


async def test_row_that_another_version_wrote_waits_for_it(store):
    broken = await store.add(job_request(), max_open=5)
    good = await store.add(job_request(), max_open=5)
    await spoil(store, broken.id)
    assert [job.id for job in await store.claim("a", 10, 5)] == [good.id]
    with pytest.raises(errors.JobStoreUnavailable, match="another version"):
        await store.get(broken.id)
    row = await row_of(store, broken.id)
    assert (row.state, row.lease_owner, row.attempts) == (JobState.QUEUED, None, 0)
    assert await store.claim("a", 10, 5) == []  # not at once


async def test_request_with_more_than_this_version_knows_ends_through_its_driver(store):
    job = await store.add(job_request(webhook="http://a/hook", track_id=7), max_open=5)
    known = json.loads((await row_of(store, job.id)).request)
    await spoil(store, job.id, **known, of_the_next_version=1)
    await age(store, job.id, 100_000)
    driver = Driver(store, FakeGraph(), JobsConfig(poll_s=0.05), WebhookWriter(str).write)
    driver.start()
    outbox = SqlOutbox(store.database)
    async with asyncio.timeout(10):
        while not (told := await outbox.claim("s", 10, 5)):
            await asyncio.sleep(0.02)
    await driver.close()
    body = json.loads(told[0].body)
    assert (body["status"], body["id"], body["track_id"]) == ("failed", job.id, 7)
    assert (await row_of(store, job.id)).state == JobState.FAILED


async def test_row_that_is_no_request_at_all_fails_in_the_end(store):
    job = await store.add(job_request(), max_open=5)
    await spoil(store, job.id)
    await age(store, job.id, 100_000)
    assert await store.claim("a", 10, 5) == []
    row = await row_of(store, job.id)
    assert (row.state, row.lease_owner) == (JobState.FAILED, None)
    assert "generation_failed" in row.failure


async def test_entries_that_nobody_can_read_are_left_out(store):
    models = SqlModelStore(store.database)
    await models.put(AddOn(id="ink", type="lora", source="ink.safetensors"))
    rows = [{"id": text, "entry": text, "changed_at": 0} for text in ("{", '{"type": "other"}')]
    add = insert(catalogue_entries)
    await store.database.write(lambda connection: connection.execute(add, rows))
    assert [entry.id for entry in await models.entries()] == ["ink"]


async def test_questions_asked_each_second_use_the_indexes(store, monkeypatch):
    plans = []
    execute = Connection.execute

    def explain(self, statement, *args, **options):
        compiled = statement.compile(dialect=self.dialect)
        values = compiled.construct_params(*args)
        in_order = tuple(values[name] for name in compiled.positiontup)
        rows = self.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}", in_order)
        plans.append(" ".join(row.detail for row in rows))
        return execute(self, statement, *args, **options)

    monkeypatch.setattr(Connection, "execute", explain)
    await store.claim("a", 10, 5)
    await store.expire(60)
    await store.count_open()
    await store.waiting("tiny")
    # The turns of keys, not by way of all they ever asked for.
    for plan, scans in ((plans[0], 2), (plans[3], 1), (plans[4], 2)):
        assert plan.count("SCAN jobs USING INDEX ix_jobs_open") == plan.count("SCAN jobs") == scans
    assert "ix_jobs_open" in plans[0]
    assert "ix_jobs_finished" in plans[1]
    assert "ix_jobs_open" in plans[2]


async def test_open_job_store_twice_shares_the_jobs(store, tmp_path):
    job = await store.add(job_request(), max_open=5)
    other = await open_job_store(DatabaseConfig(url=f"sqlite:///{tmp_path}/var/jobs.db"))
    claimed = await asyncio.gather(store.claim("a", 10, 5), other.claim("b", 10, 5))
    assert sorted(len(jobs) for jobs in claimed) == [0, 1]
    assert await other.get(job.id)
    await other.close()
