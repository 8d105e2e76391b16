"""What is special about jobs in a database."""

import asyncio

import pytest
from sqlalchemy import insert, update
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app import errors
from serve_app.config import DatabaseConfig
from serve_app.database import open_job_store
from serve_app.database.models import SqlModelStore
from serve_app.database.schema import catalogue_entries, jobs
from serve_app.models import AddOn
from serve_app.types import JobState
from tests.builders import job_request


@pytest.fixture
async def store(tmp_path):
    store = await open_job_store(DatabaseConfig(url=f"sqlite:///{tmp_path}/var/jobs.db"))
    yield store
    await store.close()


async def test_claim_of_a_row_nobody_can_read_fails_that_job_only(store):
    broken = await store.add(job_request(), max_open=5)
    good = await store.add(job_request(), max_open=5)
    async with store.database.write() as connection:
        unreadable = {"request": '{"from": "another version"}'}
        await connection.execute(update(jobs).where(jobs.c.id == broken.id).values(unreadable))
    assert [job.id for job in await store.claim("a", 10, 5)] == [good.id]
    with pytest.raises(errors.JobStoreUnavailable, match="another version"):
        await store.get(broken.id)
    async with store.database.read() as connection:
        row = (await connection.execute(jobs.select().where(jobs.c.id == broken.id))).one()
    assert (row.state, row.lease_owner) == (JobState.FAILED, None)
    assert "generation_failed" in row.failure


async def test_entries_that_nobody_can_read_are_left_out(store):
    models = SqlModelStore(store.database)
    await models.put(AddOn(id="ink", type="lora", source="ink.safetensors"))
    rows = [{"id": text, "entry": text, "changed_at": 0} for text in ("{", '{"type": "other"}')]
    async with store.database.write() as connection:
        await connection.execute(insert(catalogue_entries), rows)
    assert [entry.id for entry in await models.entries()] == ["ink"]


async def test_questions_asked_each_second_use_the_indexes(store, monkeypatch):
    plans = []
    execute = AsyncConnection.execute

    async def explain(self, statement, *args, **options):
        compiled = statement.compile(dialect=self.dialect)
        values = compiled.construct_params(*args)
        in_order = tuple(values[name] for name in compiled.positiontup)
        rows = await self.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}", in_order)
        plans.append(" ".join(row.detail for row in rows))
        return await execute(self, statement, *args, **options)

    monkeypatch.setattr(AsyncConnection, "execute", explain)
    await store.claim("a", 10, 5)
    await store.expire(60)
    await store.count_open()
    await store.waiting("tiny")
    for plan in (plans[0], plans[3]):  # the turns of keys, not by way of all they ever asked for
        assert plan.count("SCAN jobs USING INDEX ix_jobs_open") == plan.count("SCAN jobs") == 2
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
