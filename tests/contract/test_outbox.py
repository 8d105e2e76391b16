"""What holds for every `Outbox`: in memory, on SQLite and on PostgreSQL."""

import asyncio
import json
from collections import Counter

import pytest

from serve_app.types import JobFailure, JobResult
from serve_app.webhooks.protocol import Backlog, DeliveryState

RESULT = JobResult(keys=("generations/a.png",), nsfw=(False,), generation_time_s=1.5)
HOOK = "https://example.com/hook?token=1"
SPAN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def finished(bench, body='{"id": 1}', url=HOOK):
    """A job that is done and whose webhook is due."""
    job = await bench.claimed("a", webhook=url)
    assert await bench.jobs.succeed("a", job.id, RESULT, body)
    return job


async def test_message_of_a_finished_job_can_be_claimed(bench):
    job = await finished(bench, '{"id": 7, "track_id": "é😀"}')
    (message,) = await bench.outbox.claim("s", 60, 5)
    assert message.id.startswith("msg_")
    assert (message.job_id, message.url, message.attempts) == (job.id, HOOK, 0)
    assert message.body == '{"id": 7, "track_id": "é😀"}'
    assert await bench.outbox.state_of(job.id) is DeliveryState.PENDING


async def test_message_knows_the_span_of_the_call_that_brought_its_job(bench):
    traced = await bench.claimed("a", webhook=HOOK, traceparent=SPAN)
    other = await bench.claimed("a", webhook=HOOK)
    for job in (traced, other):
        await bench.jobs.succeed("a", job.id, RESULT, "{}")
    messages = await bench.outbox.claim("s", 60, 5)
    assert {one.job_id: one.traceparent for one in messages} == {traced.id: SPAN, other.id: ""}


async def test_message_of_a_failed_job_can_be_claimed(bench):
    job = await bench.claimed("a", webhook=HOOK)
    await bench.jobs.fail("a", job.id, JobFailure(code="x", message="y"), "{}")
    assert [message.job_id for message in await bench.outbox.claim("s", 60, 5)] == [job.id]


async def test_settling_without_a_body_leaves_no_message(bench):
    job = await bench.claimed("a", webhook=HOOK)
    await bench.jobs.succeed("a", job.id, RESULT)
    assert await bench.outbox.claim("s", 60, 5) == []
    assert await bench.outbox.state_of(job.id) is None


@pytest.mark.parametrize("text", ["a\0b", "\ud800"], ids=ascii)
async def test_body_with_odd_characters_says_the_same(bench, text):
    await finished(bench, json.dumps({"track_id": text}, ensure_ascii=False))
    await finished(bench, f'["{text}"]')
    messages = await bench.outbox.claim("s", 60, 5)
    bodies = sorted((json.loads(message.body) for message in messages), key=str)
    assert bodies == [[text], {"track_id": text}]


async def test_claim_of_a_held_message_gets_nothing_until_the_lease_ends(bench):
    await finished(bench)
    (message,) = await bench.outbox.claim("s", 60, 5)
    assert await bench.outbox.claim("t", 60, 5) == []
    await bench.advance(61)
    (again,) = await bench.outbox.claim("t", 60, 5)
    assert again == message  # the same id, and the attempt that was cut off does not count
    assert not await bench.outbox.settle("s", message.id, DeliveryState.DELIVERED)
    assert not await bench.outbox.reschedule("s", message.id, 5)


async def test_claim_by_eight_at_once_shares_no_message(bench):
    jobs = [await finished(bench) for _ in range(24)]

    async def drain(owner):
        got = []
        while claimed := await bench.outbox.claim(owner, 60, 2):
            got += [message.job_id for message in claimed]
        return got

    shares = await asyncio.gather(*(drain(f"sender-{number}") for number in range(8)))
    counted = Counter(job_id for share in shares for job_id in share)
    assert counted == Counter(job.id for job in jobs)


async def test_claim_takes_the_longest_due_first(bench):
    jobs = []
    for _ in range(3):
        jobs.append(await finished(bench))
        await bench.advance(1)
    order = [(await bench.outbox.claim("s", 60, 1))[0].job_id for _ in range(3)]
    assert order == [job.id for job in jobs]


async def test_reschedule_counts_the_attempt_and_waits(bench):
    await finished(bench)
    (message,) = await bench.outbox.claim("s", 60, 5)
    assert await bench.outbox.reschedule("s", message.id, 300)
    await bench.advance(299)
    assert await bench.outbox.claim("s", 60, 5) == []
    await bench.advance(2)
    (again,) = await bench.outbox.claim("s", 60, 5)
    assert (again.id, again.attempts) == (message.id, 1)


@pytest.mark.parametrize("state", [DeliveryState.DELIVERED, DeliveryState.FAILED])
async def test_settle_makes_the_message_final(bench, state):
    job = await finished(bench)
    (message,) = await bench.outbox.claim("s", 60, 5)
    assert await bench.outbox.settle("s", message.id, state)
    assert await bench.outbox.state_of(job.id) is state
    await bench.advance(10**6)
    assert await bench.outbox.claim("s", 60, 5) == []
    assert not await bench.outbox.settle("s", message.id, state)
    assert not await bench.outbox.reschedule("s", message.id, 5)


async def test_backlog_counts_what_is_to_be_sent_and_how_late_it_is(bench):
    assert await bench.outbox.backlog() == Backlog(0, 0)
    await finished(bench)
    await bench.advance(30)
    await finished(bench)
    backlog = await bench.outbox.backlog()
    assert (backlog.pending, backlog.overdue_s) == (2, pytest.approx(30, abs=5))
    first, second = await bench.outbox.claim("s", 60, 5)
    assert await bench.outbox.backlog() == Backlog(2, 0)  # at work
    await bench.outbox.reschedule("s", first.id, 300)
    await bench.outbox.settle("s", second.id, DeliveryState.DELIVERED)
    await bench.advance(310)
    backlog = await bench.outbox.backlog()
    assert (backlog.pending, backlog.overdue_s) == (1, pytest.approx(10, abs=5))


async def test_message_outlives_its_job(bench):
    job = await finished(bench)
    await bench.advance(100)
    assert [gone.id for gone in await bench.jobs.expire(50)] == [job.id]
    assert [message.job_id for message in await bench.outbox.claim("s", 60, 5)] == [job.id]


async def test_expire_removes_old_final_messages_only(bench):
    jobs = {(await finished(bench)).id, (await finished(bench)).id}
    (message,) = await bench.outbox.claim("s", 60, 1)
    done, (waiting,) = message.job_id, jobs - {message.job_id}
    await bench.outbox.settle("s", message.id, DeliveryState.DELIVERED)
    assert await bench.outbox.expire(50) == 0
    await bench.advance(100)
    assert await bench.outbox.expire(50) == 1
    assert await bench.outbox.state_of(done) is None
    assert await bench.outbox.state_of(waiting) is DeliveryState.PENDING


async def test_reopen_after_close_keeps_messages(bench):
    await finished(bench)
    await bench.reopen()
    assert len(await bench.outbox.claim("s", 60, 5)) == 1


async def test_message_of_a_key_comes_with_its_own_secret(bench):
    key, _ = await bench.keys.create("shop")
    other, _ = await bench.keys.create("other")
    assert await bench.keys.sign_with(key.id, "whsec_own")
    assert (await bench.keys.find(key.id)).signs
    for key_id in (key.id, other.id, "open"):
        job = await bench.claimed("a", key_id=key_id, webhook="http://x/")
        await bench.jobs.cancel(job.id, key_id)
    secrets = {one.body: one.secret for one in await bench.outbox.claim("s", 0.0, 5)}
    assert secrets == {key.id: "whsec_own", other.id: None, "open": None}
    assert "whsec_own" not in repr(await bench.keys.find(key.id))
    assert await bench.keys.sign_with(key.id, None)
    await bench.advance(1)
    assert {one.secret for one in await bench.outbox.claim("t", 10, 5)} == {None}
    assert not await bench.keys.sign_with("key_nothing", "whsec_own")
