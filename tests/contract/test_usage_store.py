"""What jobs cost, counted by every `JobStore` when it settles them."""

import asyncio

from serve_app import errors
from serve_app.failure import to_failure
from serve_app.types import Cost, JobResult
from tests.builders import spec

COST = Cost(row_steps=100, device_s=2.5, stored_bytes=4000)
RESULT = JobResult(keys=("a", "b"), nsfw=(False, False), generation_time_s=9, cost=COST)
FAILURE = to_failure(errors.GenerationFailed())


async def month_of(bench):
    return await bench.usage.usage(await bench.usage.this_month())


async def test_costs_are_added_up_by_key_day_and_model(bench):
    for _ in range(3):
        job = await bench.claimed("a", key_id="key_a")
        assert await bench.jobs.succeed("a", job.id, RESULT)
    other = await bench.claimed("a", key_id="key_a", spec=spec(model_id="other"))
    await bench.jobs.succeed("a", other.id, RESULT)
    rows = {(row.key_id, row.model_id): row for row in await month_of(bench)}
    assert rows.keys() == {("key_a", "tiny"), ("key_a", "other")}
    row = rows["key_a", "tiny"]
    assert (row.succeeded, row.failed, row.cancelled, row.pictures) == (3, 0, 0, 6)
    assert (row.row_steps, row.device_s, row.stored_bytes) == (300, 7.5, 12_000)
    by_model = await bench.usage.by_model(await bench.usage.this_month())
    assert {model: row.pictures for model, row in by_model.items()} == {"tiny": 6, "other": 2}


async def test_jobs_that_end_otherwise_are_counted_and_cost_nothing(bench):
    failed, cancelled = await bench.claimed("a"), await bench.job()
    await bench.jobs.fail("a", failed.id, FAILURE)
    await bench.jobs.cancel(cancelled.id)
    (row,) = await month_of(bench)
    assert (row.succeeded, row.failed, row.cancelled, row.pictures, row.row_steps) == (
        0,
        1,
        1,
        0,
        0,
    )


async def test_job_is_counted_once_however_often_it_is_settled(bench):
    job = await bench.claimed("a")
    assert await bench.jobs.succeed("a", job.id, RESULT)
    assert not await bench.jobs.succeed("a", job.id, RESULT)
    assert not await bench.jobs.cancel(job.id)
    assert not await bench.jobs.fail("b", job.id, FAILURE)
    (row,) = await month_of(bench)
    assert (row.succeeded, row.failed, row.cancelled) == (1, 0, 0)


async def test_many_settled_at_once_lose_nothing(bench):
    jobs = [await bench.claimed("a") for _ in range(12)]
    await asyncio.gather(*(bench.jobs.succeed("a", job.id, RESULT) for job in jobs))
    (row,) = await month_of(bench)
    assert (row.succeeded, row.row_steps) == (12, 1200)


async def test_counts_outlive_the_rows_of_their_jobs(bench):
    job = await bench.claimed("a")
    await bench.jobs.succeed("a", job.id, RESULT)
    await bench.advance(10)
    assert await bench.jobs.expire(5)
    assert (await month_of(bench))[0].pictures == 2


async def test_other_months_are_apart(bench):
    job = await bench.claimed("a")
    await bench.jobs.succeed("a", job.id, RESULT)
    month = await bench.usage.this_month()
    (row,) = await bench.usage.usage(month)
    assert row.day.startswith(f"{month}-")
    for other in ("1999-12", "2099-01", ""):
        assert await bench.usage.usage(other) == []
        assert await bench.usage.by_model(other) == {}


async def test_cost_of_a_job_is_in_its_row(bench):
    job = await bench.claimed("a")
    await bench.jobs.succeed("a", job.id, RESULT)
    assert (await bench.jobs.get(job.id)).result.cost == COST


async def test_month_comes_in_pages_of_any_size(bench):
    for key_id in ("key_a", "key_b"):
        for model_id in ("m1", "m2", "m3"):
            job = await bench.claimed("a", key_id=key_id, spec=spec(model_id=model_id))
            await bench.jobs.succeed("a", job.id, RESULT)
    month, every = await bench.usage.this_month(), await month_of(bench)
    found, after = [], None
    while page := await bench.usage.usage(month, 4, after):
        found += page
        after = (page[-1].day, page[-1].key_id, page[-1].model_id)
    assert found == every
    assert len(every) == 6
