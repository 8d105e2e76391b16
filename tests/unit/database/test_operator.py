"""Lists of jobs and messages, and another try, on both databases."""

import asyncio

import pytest

from serve_app import errors
from serve_app.config import DatabaseConfig
from serve_app.database.jobs import SqlJobStore
from serve_app.database.operator import list_jobs, list_messages, retry_job, retry_message
from serve_app.database.outbox import SqlOutbox
from serve_app.failure import to_failure
from serve_app.types import JobResult, JobState
from serve_app.webhooks.protocol import DeliveryState
from tests.builders import job_request, spec

FAILURE = to_failure(errors.OutOfMemory())
RESULT = JobResult(keys=("a",), nsfw=(False,), generation_time_s=1.0)


@pytest.fixture
async def store(empty_database_url):
    store = SqlJobStore(DatabaseConfig(url=empty_database_url))
    yield store
    await store.close()


async def failed(store, **changes):
    job = await store.add(job_request(**changes), 100)
    await store.claim("a", 10, 100)
    assert await store.fail("a", job.id, FAILURE, "{}")
    return job.id


async def test_jobs_are_listed_newest_first_and_by_what_is_asked(store):
    first = await failed(store)
    second = (await store.add(job_request(key_id="key_b"), 100)).id
    third = (await store.add(job_request(spec=spec(model_id="other")), 100)).id
    rows = await list_jobs(store.database, 10)
    assert [row.id for row in rows] == [third, second, first]
    assert (rows[2].code, rows[2].attempts, rows[0].code) == ("out_of_memory", 1, "")
    assert 0 <= rows[0].age_s < 60
    asked = [
        await list_jobs(store.database, 10, JobState.FAILED),
        await list_jobs(store.database, 10, None, "other"),
        await list_jobs(store.database, 10, None, None, "key_b"),
        await list_jobs(store.database, 1),
        await list_jobs(store.database, 10, JobState.FAILED, "other"),
    ]
    assert [[row.id for row in rows] for rows in asked] == [[first], [third], [second], [third], []]


async def test_failed_job_runs_again_and_tells_its_webhook_again(store):
    outbox = SqlOutbox(store.database)
    job_id = await failed(store, webhook="http://x/hook")
    assert await retry_job(store.database, job_id)
    (job,) = await store.claim("b", 10, 5)
    assert (job.id, job.attempts, job.failure, job.finished_at) == (job_id, 1, None, None)
    (told,) = await outbox.claim("s", 10, 5)
    assert await outbox.settle("s", told.id, DeliveryState.DELIVERED)
    assert await store.succeed("b", job_id, RESULT, "{}")
    assert await outbox.state_of(job_id) is DeliveryState.PENDING
    assert len(await outbox.claim("s", 10, 5)) == 1


async def test_job_that_waits_is_due_at_once(store):
    job = await store.add(job_request(), 100)
    await store.claim("a", 10, 5)
    await store.release("a", [job.id], delay_s=1000)
    assert await store.claim("a", 10, 5) == []
    assert await retry_job(store.database, job.id)
    assert [one.id for one in await store.claim("a", 10, 5)] == [job.id]


async def test_job_at_work_or_done_stays_as_it_is(store):
    job = await store.add(job_request(), 100)
    await store.claim("a", 10, 5)
    assert not await retry_job(store.database, job.id)
    await store.succeed("a", job.id, RESULT)
    assert not await retry_job(store.database, job.id)
    assert (await store.get(job.id)).state is JobState.SUCCESS
    assert not await retry_job(store.database, 7)


async def test_messages_are_listed_and_sent_again(store):
    outbox = SqlOutbox(store.database)
    job_id = await failed(store, webhook="http://x/hook")
    await asyncio.sleep(0.002)  # SQLite's clock has milliseconds
    other = await failed(store, webhook="http://y/hook")
    rows = await list_messages(store.database, 10)
    assert [row.job_id for row in rows] == [other, job_id]
    assert rows[0].due_s == 0
    (row,) = await list_messages(store.database, 10, None, job_id)
    claimed = await outbox.claim("s", 10, 5)
    assert not await retry_message(store.database, row.id)
    for message in claimed:
        await outbox.settle("s", message.id, DeliveryState.FAILED)
    (gone, _) = await list_messages(store.database, 10, DeliveryState.FAILED)
    assert (gone.attempts, gone.due_s) == (1, None)
    assert await retry_message(store.database, row.id)
    (again,) = await outbox.claim("s", 10, 5)
    assert (again.id, again.attempts) == (row.id, 0)
    assert not await retry_message(store.database, "msg_unknown")
