"""What holds for every `JobStore`: in memory, on SQLite and on PostgreSQL."""

import asyncio
from collections import Counter
from itertools import pairwise

import pytest

from serve_app import errors
from serve_app.types import ImageSource, JobFailure, JobResult, JobState, OutputPlan
from tests.builders import job_request, spec

RESULT = JobResult(keys=("generations/a.png",), nsfw=(False,), generation_time_s=1.5)
FAILURE = JobFailure(code="generation_failed", message="Failed", fields={"prompt": ["odd"]})
HOOK = "https://example.com/hook?token=1"


@pytest.mark.slow
async def test_add_returns_a_queued_job_that_get_shows(bench):
    request = job_request(
        init_image=ImageSource(field="init_image", stored_key="inputs/a"),
        output=OutputPlan(keys=("temp/0-a.png", "temp/1-a.png"), base64=True, temp=True),
        webhook=HOOK,
        track_id={"mine": [1, None, 2.5, True, "x"]},
        echo={"steps": "30", "seed": None},
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )
    job = await bench.jobs.add(request, max_open=1)
    assert job.state is JobState.QUEUED
    assert job.request == request
    assert await bench.jobs.get(job.id) == job
    (taken,) = await bench.jobs.claim("a", 60, 1)
    assert taken.request == request


@pytest.mark.parametrize("job_id", [-1, 0, 999, 2**63, 10**30])
async def test_get_an_unknown_id_finds_nothing(bench, job_id):
    assert await bench.jobs.get(job_id) is None
    assert await bench.jobs.cancel(job_id) is False


@pytest.mark.slow
async def test_ids_are_given_once_also_after_expiry(bench):
    ids = set()
    for _ in range(30):
        job = await bench.job()
        ids.add(job.id)
        await bench.jobs.cancel(job.id)
        await bench.advance(10)
        await bench.jobs.expire(5)
    assert len(ids) == 30


async def test_ids_say_nothing_of_the_jobs_between(bench):
    """Neither the order nor the number: an id is no nearer to its neighbour's than to any."""
    ids = [(await bench.job()).id for _ in range(40)]
    assert all(0 < job_id < 2**31 for job_id in ids)
    steps = [abs(after - before) for before, after in pairwise(ids)]
    assert min(steps) > 100
    assert max(ids) - min(ids) > 2**30
    num_rising = sum(before < after for before, after in pairwise(ids))
    assert 5 <= num_rising <= 34


async def test_add_beyond_max_open_is_refused(bench):
    await bench.jobs.add(job_request(), max_open=1)
    with pytest.raises(errors.Overloaded):
        await bench.jobs.add(job_request(), max_open=1)


async def test_add_from_many_at_once_keeps_max_open(bench):
    async def accept():
        try:
            return await bench.jobs.add(job_request(), max_open=7)
        except errors.Overloaded:
            return None

    accepted = [job for job in await asyncio.gather(*(accept() for _ in range(24))) if job]
    assert len(accepted) == 7
    assert sum((await bench.jobs.count_open()).values()) == 7


async def test_oldest_open_job_is_told_by_its_age(bench):
    assert await bench.jobs.oldest_open_s() == 0
    first = await bench.job()
    await bench.advance(30)
    second = await bench.job()
    assert await bench.jobs.oldest_open_s() == pytest.approx(30, abs=5)
    await bench.jobs.cancel(first.id)
    assert await bench.jobs.oldest_open_s() == pytest.approx(0, abs=5)
    await bench.jobs.cancel(second.id)
    assert await bench.jobs.oldest_open_s() == 0


async def test_jobs_that_failed_are_told_latest_first(bench):
    ids = []
    for _ in range(3):
        job = await bench.job()
        (claimed,) = await bench.jobs.claim("a", 30, 1)
        assert claimed.id == job.id
        assert await bench.jobs.fail("a", job.id, JobFailure(code="internal", message="No."))
        ids.append(job.id)
        await bench.advance(1)
    await bench.jobs.cancel((await bench.job()).id)
    failed = await bench.jobs.last_failed(2)
    assert [job.id for job in failed] == ids[:0:-1]
    assert failed[0].failure.code == "internal"


async def test_add_after_a_job_is_final_has_room_again(bench):
    job = await bench.jobs.add(job_request(), max_open=1)
    await bench.jobs.cancel(job.id)
    assert await bench.jobs.add(job_request(), max_open=1)


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "😀 \\u0000 \x1b '\";--"], ids=repr)
async def test_add_keeps_any_text_in_values(bench, text):
    request = job_request(spec=spec(prompt=text), track_id=text, echo={text: text})
    job = await bench.jobs.add(request, max_open=1)
    shown = await bench.jobs.get(job.id)
    assert shown.request == request


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"], ids=repr)
@pytest.mark.parametrize("field", ["model_id", "key_id", "webhook"])
async def test_add_refuses_unstorable_text_in_a_column(bench, field, text):
    changes = {"spec": spec(model_id=text)} if field == "model_id" else {field: text}
    with pytest.raises(errors.InvalidRequest):
        await bench.jobs.add(job_request(**changes), max_open=1)
    assert await bench.jobs.count_open() == {}


async def test_claim_takes_due_jobs_oldest_first(bench):
    jobs = [await bench.job() for _ in range(4)]
    claimed = await bench.jobs.claim("a", 10, 3)
    assert [job.id for job in claimed] == [job.id for job in jobs[:3]]
    assert {job.state for job in claimed} == {JobState.PROCESSING}
    assert {job.attempts for job in claimed} == {1}
    assert all(job.started_at is not None for job in claimed)
    assert await bench.jobs.get(claimed[0].id) == claimed[0]


async def test_job_added_with_a_lease_is_held_from_the_start(bench):
    job = await bench.claimed("a", lease_s=10)
    assert (job.state, job.attempts) == (JobState.PROCESSING, 1)
    assert await bench.jobs.get(job.id) == job
    await bench.advance(9)
    assert await bench.jobs.claim("b", 10, 5) == []
    await bench.advance(2)
    assert [taken.id for taken in await bench.jobs.claim("b", 10, 5)] == [job.id]


async def test_ended_are_final_and_unknown_jobs(bench):
    queued, held, cancelled = await bench.job(), await bench.claimed("a"), await bench.job()
    await bench.jobs.cancel(cancelled.id)
    ids = [queued.id, held.id, cancelled.id, 999_999]
    assert await bench.jobs.ended(ids) == {cancelled.id, 999_999}


async def test_claim_of_a_held_job_gets_nothing(bench):
    await bench.claimed("a")
    assert await bench.jobs.claim("b", 10, 5) == []
    assert await bench.jobs.claim("a", 10, 5) == []


async def test_claim_by_eight_at_once_shares_no_job(bench):
    jobs = [await bench.job() for _ in range(60)]

    async def drain(owner):
        got = []
        while claimed := await bench.jobs.claim(owner, 60, 3):
            got += [job.id for job in claimed]
        return got

    shares = await asyncio.gather(*(drain(f"driver-{number}") for number in range(8)))
    counted = Counter(job_id for share in shares for job_id in share)
    assert counted == Counter(job.id for job in jobs)


async def test_claim_after_the_lease_ran_out_takes_the_job_over(bench):
    job = await bench.claimed("a", lease_s=10)
    await bench.advance(9)
    assert await bench.jobs.claim("b", 10, 1) == []
    await bench.advance(2)
    (taken,) = await bench.jobs.claim("b", 10, 1)
    assert (taken.id, taken.attempts) == (job.id, 2)
    assert taken.started_at < taken.created_at + 5


async def test_old_holder_after_a_takeover_can_do_nothing(bench):
    job = await bench.claimed("a", lease_s=10)
    await bench.advance(11)
    await bench.jobs.claim("b", 10, 1)
    assert await bench.jobs.renew("a", 10, {job.id: 0.5}) == set()
    assert not await bench.jobs.succeed("a", job.id, RESULT, "{}")
    assert not await bench.jobs.fail("a", job.id, FAILURE, "{}")
    await bench.jobs.release("a", [job.id])
    assert (await bench.jobs.get(job.id)).state is JobState.PROCESSING
    assert await bench.jobs.succeed("b", job.id, RESULT)


async def test_renew_extends_the_lease_and_keeps_progress(bench):
    first, second = await bench.claimed("a"), await bench.claimed("a")
    await bench.advance(9)
    held = await bench.jobs.renew("a", 10, {first.id: 0.25, second.id: 0.75})
    assert held == {first.id, second.id}
    await bench.advance(9)
    assert await bench.jobs.claim("b", 10, 5) == []
    assert (await bench.jobs.get(first.id)).progress == 0.25
    assert (await bench.jobs.get(second.id)).progress == 0.75


async def test_renew_of_a_lease_nobody_took_over_holds(bench):
    job = await bench.claimed("a", lease_s=10)
    await bench.advance(100)
    assert await bench.jobs.renew("a", 10, {job.id: 0.5}) == {job.id}
    assert await bench.jobs.claim("b", 10, 5) == []


async def test_renew_leaves_out_what_is_not_held(bench):
    held, settled, cancelled = [await bench.claimed("a") for _ in range(3)]
    other, queued = await bench.claimed("b"), await bench.job()
    await bench.jobs.succeed("a", settled.id, RESULT)
    await bench.jobs.cancel(cancelled.id)
    ids = [held.id, settled.id, cancelled.id, other.id, queued.id, 999_999]
    assert await bench.jobs.renew("a", 10, dict.fromkeys(ids, 0.5)) == {held.id}
    assert (await bench.jobs.get(other.id)).progress == 0
    assert await bench.jobs.renew("a", 10, {}) == set()


@pytest.mark.parametrize(
    ("value", "stored"), [(-1.0, 0.0), (7.0, 1.0), (float("nan"), 0.0), (float("inf"), 0.0)]
)
async def test_renew_with_an_odd_progress_stores_a_share(bench, value, stored):
    job = await bench.claimed("a")
    await bench.jobs.renew("a", 10, {job.id: value})
    assert (await bench.jobs.get(job.id)).progress == stored


async def test_release_gives_the_job_back_after_the_delay(bench):
    job = await bench.claimed("a")
    await bench.jobs.renew("a", 10, {job.id: 0.5})
    await bench.jobs.release("a", [job.id], 5)
    released = await bench.jobs.get(job.id)
    assert (released.state, released.attempts, released.progress) == (JobState.QUEUED, 1, 0)
    assert await bench.jobs.claim("b", 10, 1) == []
    await bench.advance(6)
    (taken,) = await bench.jobs.claim("b", 10, 1)
    assert taken.attempts == 2


async def test_release_with_refund_does_not_count_the_attempt(bench):
    job = await bench.claimed("a")
    await bench.jobs.release("a", [job.id], refund=True)
    (taken,) = await bench.jobs.claim("b", 10, 1)
    assert taken.attempts == 1


async def test_release_of_jobs_not_held_leaves_them(bench):
    other, final = await bench.claimed("b"), await bench.claimed("a")
    await bench.jobs.succeed("a", final.id, RESULT)
    await bench.jobs.release("a", [other.id, final.id, 999_999])
    assert (await bench.jobs.get(other.id)).state is JobState.PROCESSING
    assert (await bench.jobs.get(final.id)).state is JobState.SUCCESS


async def test_waiting_are_open_jobs_of_the_model_without_a_step_in_their_order(bench):
    first, begun, third = [await bench.claimed("a") for _ in range(3)]
    other = await bench.job(spec=spec(model_id="other"))
    queued, settled = await bench.job(), await bench.claimed("b")
    await bench.jobs.renew("a", 10, {begun.id: 0.25})
    await bench.jobs.succeed("b", settled.id, RESULT)
    assert (await bench.jobs.waiting("tiny")).job_ids == [first.id, third.id, queued.id]
    assert (await bench.jobs.waiting("other")).job_ids == [other.id]
    assert (await bench.jobs.waiting("none")).job_ids == []


async def test_secret_is_one_for_each_purpose_and_stays(bench):
    a, b = await bench.jobs.secret("a"), await bench.jobs.secret("b")
    await bench.job()
    await bench.reopen()
    assert (await bench.jobs.secret("a"), await bench.jobs.secret("b")) == (a, b)
    assert len(a) == len(b) == 32
    assert a != b
