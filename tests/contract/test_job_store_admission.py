"""Which jobs every `JobStore` accepts: limits per key, repeats of a call."""

import asyncio

import pytest

from serve_app import errors
from serve_app.jobs.protocol import Idempotency
from tests.builders import job_request

FIRST = Idempotency("order-7", "digest-a", ttl_s=100)
OTHER = Idempotency("order-7", "digest-b", ttl_s=100)


async def add(bench, idempotency=None, **changes):
    return await bench.jobs.add(job_request(**changes), 100, None, idempotency)


async def test_repeat_returns_the_first_job(bench):
    first = await add(bench, FIRST)
    again = await add(bench, FIRST, track_id="ignored")
    assert again == first
    assert await bench.jobs.admit("open", 100, None, FIRST) == first
    assert sum((await bench.jobs.count_open()).values()) == 1


async def test_repeat_of_a_final_job_returns_it(bench):
    first = await add(bench, FIRST)
    await bench.jobs.cancel(first.id)
    assert await add(bench, FIRST) == await bench.jobs.get(first.id)


async def test_repeat_is_answered_although_all_places_are_taken(bench):
    first = await add(bench, FIRST)
    assert await bench.jobs.add(job_request(), 1, 1, FIRST) == first


async def test_same_idempotency_key_with_another_request_is_refused(bench):
    await add(bench, FIRST)
    with pytest.raises(errors.InvalidRequest) as caught:
        await add(bench, OTHER)
    assert caught.value.field == "Idempotency-Key"
    with pytest.raises(errors.InvalidRequest):
        await bench.jobs.admit("open", 100, None, OTHER)


async def test_same_idempotency_key_of_another_api_key_is_another_job(bench):
    first = await add(bench, FIRST, key_id="key_a")
    second = await add(bench, OTHER, key_id="key_b")
    assert first.id != second.id


async def test_idempotency_key_after_its_time_names_a_new_job(bench):
    first = await add(bench, FIRST)
    await bench.advance(99)
    assert (await add(bench, FIRST)).id == first.id
    await bench.advance(2)
    second = await add(bench, OTHER)
    assert second.id != first.id
    assert (await add(bench, OTHER)).id == second.id


async def test_eight_equal_calls_at_once_make_one_job(bench):
    jobs = await asyncio.gather(*(add(bench, FIRST) for _ in range(8)))
    assert len({job.id for job in jobs}) == 1
    assert sum((await bench.jobs.count_open()).values()) == 1


async def test_calls_without_idempotency_key_are_all_different(bench):
    jobs = await asyncio.gather(*(add(bench) for _ in range(8)))
    assert len({job.id for job in jobs}) == 8


async def test_job_beyond_the_places_of_its_key_is_refused_until_one_is_free(bench):
    first = await bench.jobs.add(job_request(key_id="key_a"), 100, 1)
    assert await bench.jobs.add(job_request(key_id="key_b"), 100, 1)
    with pytest.raises(errors.TooManyOpen) as caught:
        await bench.jobs.admit("key_a", 100, 1)
    assert (caught.value.limit, caught.value.num_open) == (1, 2)
    with pytest.raises(errors.TooManyOpen) as caught:
        await bench.jobs.add(job_request(key_id="key_a"), 100, 1)
    assert (caught.value.limit, caught.value.num_open) == (1, 2)
    await bench.jobs.cancel(first.id)
    assert await bench.jobs.add(job_request(key_id="key_a"), 100, 1)


async def test_many_at_once_keep_the_places_of_their_key(bench):
    async def accept(key_id):
        try:
            return await bench.jobs.add(job_request(key_id=key_id), 100, 5)
        except errors.RateLimited:
            return None

    answers = await asyncio.gather(*(accept(f"key_{n % 2}") for n in range(24)))
    owners = [job.request.key_id for job in answers if job]
    assert sorted(owners) == ["key_0"] * 5 + ["key_1"] * 5


async def test_admit_says_what_add_would_and_keeps_nothing(bench):
    assert await bench.jobs.admit("open", 1, 1, FIRST) is None
    await add(bench)
    with pytest.raises(errors.Overloaded):
        await bench.jobs.admit("open", 1, None, FIRST)
    assert await bench.jobs.admit("open", 2, None, FIRST) is None
