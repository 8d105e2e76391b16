"""What holds for the end of a job in every `JobStore`: in memory, on SQLite and on PostgreSQL."""

import asyncio
import json

from serve_app.types import JobFailure, JobResult, JobState
from tests.builders import spec

RESULT = JobResult(keys=("generations/a.png",), nsfw=(False,), generation_time_s=1.5)
FAILURE = JobFailure(code="generation_failed", message="Failed", fields={"prompt": ["odd"]})
HOOK = "https://example.com/hook?token=1"


async def test_succeed_settles_with_the_result(bench):
    job = await bench.claimed("a")
    assert await bench.jobs.succeed("a", job.id, RESULT)
    done = await bench.jobs.get(job.id)
    assert (done.state, done.result, done.failure) == (JobState.SUCCESS, RESULT, None)
    assert done.progress == 1
    assert done.created_at <= done.started_at <= done.finished_at


async def test_fail_settles_with_the_failure(bench):
    job = await bench.claimed("a")
    assert await bench.jobs.fail("a", job.id, FAILURE)
    done = await bench.jobs.get(job.id)
    assert (done.state, done.result, done.failure) == (JobState.FAILED, None, FAILURE)
    assert done.finished_at is not None


async def test_settling_a_job_that_is_not_held_is_refused(bench):
    queued, other = await bench.job(), await bench.claimed("b")
    for job in (queued, other):
        assert not await bench.jobs.succeed("a", job.id, RESULT)
        assert not await bench.jobs.fail("a", job.id, FAILURE)
    assert not await bench.jobs.succeed("a", 999_999, RESULT)
    assert (await bench.jobs.get(queued.id)).state is JobState.QUEUED


async def test_settling_twice_keeps_the_first_outcome(bench):
    job = await bench.claimed("a")
    assert await bench.jobs.succeed("a", job.id, RESULT)
    assert not await bench.jobs.fail("a", job.id, FAILURE)
    assert not await bench.jobs.cancel(job.id)
    assert (await bench.jobs.get(job.id)).state is JobState.SUCCESS


async def test_cancel_wins_over_a_later_settling(bench):
    job = await bench.claimed("a")
    assert await bench.jobs.cancel(job.id)
    assert not await bench.jobs.succeed("a", job.id, RESULT, "{}")
    assert not await bench.jobs.cancel(job.id)
    done = await bench.jobs.get(job.id)
    assert (done.state, done.result) == (JobState.CANCELLED, None)
    assert done.finished_at is not None


async def test_cancel_and_settling_at_once_have_one_winner(bench):
    jobs = [await bench.claimed("a", webhook=HOOK) for _ in range(6)]
    for job in jobs:
        cancelled, settled = await asyncio.gather(
            bench.jobs.cancel(job.id, '"cancelled"'),
            bench.jobs.succeed("a", job.id, RESULT, '"settled"'),
        )
        assert cancelled != settled
        (message,) = await bench.outbox.claim("sender", 10, 5)
        assert (message.job_id, message.body) == (
            job.id,
            '"cancelled"' if cancelled else '"settled"',
        )


async def test_cancel_leaves_a_message_only_where_it_settles(bench):
    job, final, silent = (
        await bench.job(webhook=HOOK), await bench.claimed("a", webhook=HOOK), await bench.job()
    )  # fmt: skip
    await bench.jobs.succeed("a", final.id, RESULT)
    for one in (job, job, final, silent):
        await bench.jobs.cancel(one.id, "{}")
    assert [message.job_id for message in await bench.outbox.claim("sender", 10, 5)] == [job.id]


async def test_cancel_a_queued_job_is_never_claimed(bench):
    job = await bench.job()
    assert await bench.jobs.cancel(job.id)
    assert await bench.jobs.claim("a", 10, 5) == []


async def test_count_open_counts_per_model(bench):
    for model_id in ("one", "two", "two", "two"):
        await bench.job(spec=spec(model_id=model_id))
    (first, second) = await bench.jobs.claim("a", 10, 2)
    await bench.jobs.cancel(second.id)
    assert first.request.spec.model_id == "one"
    assert await bench.jobs.count_open() == {"one": 1, "two": 2}


async def test_expire_removes_old_final_jobs_only(bench):
    old, queued = await bench.claimed("a"), await bench.job()
    await bench.jobs.succeed("a", old.id, RESULT)
    await bench.advance(100)
    young = await bench.job()
    await bench.jobs.cancel(young.id)
    removed = await bench.jobs.expire(50)
    assert [job.id for job in removed] == [old.id]
    assert removed[0].result == RESULT
    assert await bench.jobs.get(old.id) is None
    assert await bench.jobs.get(queued.id)
    assert await bench.jobs.get(young.id)


async def test_expire_removes_no_more_than_the_limit(bench):
    for _ in range(5):
        await bench.jobs.cancel((await bench.job()).id)
    await bench.advance(10)
    assert [len(await bench.jobs.expire(5, limit=3)) for _ in range(3)] == [3, 2, 0]


async def test_reopen_after_close_keeps_everything(bench):
    done, held, queued = await bench.claimed("a"), await bench.claimed("a"), await bench.job()
    await bench.jobs.succeed("a", done.id, RESULT)
    before = [await bench.jobs.get(job.id) for job in (done, held, queued)]
    await bench.reopen()
    assert [await bench.jobs.get(job.id) for job in (done, held, queued)] == before
    assert await bench.jobs.renew("a", 10, {held.id: 0.5}) == {held.id}


async def test_webhook_body_of_a_job_without_webhook_is_dropped(bench):
    job = await bench.claimed("a")
    await bench.jobs.succeed("a", job.id, RESULT, json.dumps({"id": job.id}))
    assert await bench.outbox.claim("sender", 10, 5) == []
