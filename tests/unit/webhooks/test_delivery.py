"""The sender against every outbox and receivers that misbehave."""

import asyncio
import json
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook

from serve_app import errors
from serve_app.net import Refused, TooSlow, Unreachable
from serve_app.testing.webhooks import FakePoster
from serve_app.types import JobResult
from serve_app.webhooks import Limits, Sender, Signer
from serve_app.webhooks.protocol import DeliveryState, Reply
from serve_app.webhooks.retry import SCHEDULE_S
from serve_app.webhooks.signing import new_secret
from tests.job_stores import MemoryBench

RESULT = JobResult(keys=("generations/a.png",), nsfw=(False,), generation_time_s=1.5)
HOOK = "https://example.com/hook?token=canary"
SECRET = new_secret()
NOW_S = 1_700_000_000.9


async def finished(bench, url=HOOK):
    job = await bench.claimed("a", webhook=url)
    body = json.dumps({"id": job.id, "track_id": "é"}, ensure_ascii=False)
    assert await bench.jobs.succeed("a", job.id, RESULT, body)
    return job


def sender(bench, poster, **limits):
    return Sender(
        bench.outbox,
        poster,
        Signer([SECRET]),
        Limits(**limits),
        clock=lambda: NOW_S,
        spread=lambda: 0.5,
    )


class SlowPoster(FakePoster):
    """Answers when told."""

    def __init__(self):
        super().__init__()
        self.may_answer = asyncio.Event()

    async def post(self, url, content, headers):
        reply = await super().post(url, content, headers)
        await self.may_answer.wait()
        return reply


async def test_message_is_posted_signed_and_settled(bench):
    job, poster = await finished(bench), FakePoster()
    assert await sender(bench, poster).deliver_due() == 1
    (sent,) = poster.sent
    assert (sent.url, json.loads(sent.content)) == (HOOK, {"id": job.id, "track_id": "é"})
    assert sent.headers["content-type"] == "application/json"
    assert sent.headers["webhook-timestamp"] == "1700000000"
    signed = Signer([SECRET]).headers(
        sent.headers["webhook-id"], 1_700_000_000, sent.content.decode()
    )
    assert sent.headers["webhook-signature"] == signed["webhook-signature"]
    assert await bench.outbox.state_of(job.id) is DeliveryState.DELIVERED
    assert await sender(bench, poster).deliver_due() == 0


async def test_message_to_a_receiver_down_for_three_days_arrives(bench):
    job, poster = await finished(bench), FakePoster()
    down = [Reply(500), Unreachable("no"), TooSlow(15.0), Reply(302), Reply(404)] * 3
    poster.answers[HOOK] = down[: len(SCHEDULE_S) - 1]
    for delay_s in SCHEDULE_S:
        if delay_s:
            await bench.advance(delay_s - 1)
            assert await sender(bench, poster).deliver_due() == 0
            await bench.advance(2)
        assert await sender(bench, poster).deliver_due() == 1
    assert len(poster.sent) == len(SCHEDULE_S)
    assert len({sent.headers["webhook-id"] for sent in poster.sent}) == 1
    assert await bench.outbox.state_of(job.id) is DeliveryState.DELIVERED


async def test_message_is_given_up_after_the_last_attempt(bench):
    job, poster = await finished(bench), FakePoster()
    poster.answers[HOOK] = [Reply(500)] * 20
    for delay_s in SCHEDULE_S:
        await bench.advance(delay_s + 1)
        await sender(bench, poster).deliver_due()
    await bench.advance(10**6)
    assert await sender(bench, poster).deliver_due() == 0
    assert len(poster.sent) == len(SCHEDULE_S)
    assert await bench.outbox.state_of(job.id) is DeliveryState.FAILED


@pytest.mark.parametrize("answer", [Reply(410), Refused("only http")], ids=["410", "refused"])
async def test_message_nobody_may_get_is_given_up_at_once(bench, answer):
    job, poster = await finished(bench), FakePoster()
    poster.answers[HOOK] = [answer]
    await sender(bench, poster).deliver_due()
    assert await bench.outbox.state_of(job.id) is DeliveryState.FAILED


async def test_retry_after_delays_the_next_attempt(bench):
    await finished(bench)
    poster = FakePoster()
    poster.answers[HOOK] = [Reply(429, "600")]
    await sender(bench, poster).deliver_due()
    await bench.advance(599)
    assert await sender(bench, poster).deliver_due() == 0
    await bench.advance(2)
    assert await sender(bench, poster).deliver_due() == 1


async def test_receiver_that_never_answers_counts_as_down(bench):
    job, poster = await finished(bench), SlowPoster()
    await sender(bench, poster, timeout_s=0.01).deliver_due()
    await bench.advance(6)
    (message,) = await bench.outbox.claim("x", 60, 5)
    assert (message.job_id, message.attempts) == (job.id, 1)


async def test_sender_has_no_more_than_max_in_flight(bench):
    for _ in range(5):
        await finished(bench)
    poster = SlowPoster()
    working = asyncio.create_task(sender(bench, poster, max_in_flight=2, poll_s=0.01).run())
    async with asyncio.timeout(5):
        while len(poster.sent) < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert len(poster.sent) == 2
        poster.may_answer.set()
        while len(poster.sent) < 5:
            await asyncio.sleep(0.01)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working


async def test_messages_of_senders_that_die_all_arrive_with_their_ids(bench):
    jobs = [await finished(bench) for _ in range(12)]
    posters = []

    def next_sender(is_answered):
        posters.append(SlowPoster())
        if is_answered:
            posters[-1].may_answer.set()
        return sender(bench, posters[-1], max_in_flight=2, lease_s=30)

    for number in range(7):  # wherever they are by then: before the post, after it, as they write
        dying = asyncio.create_task(next_sender(is_answered=number % 2 == 1).deliver_due())
        await asyncio.wait([dying], timeout=0.05)
        dying.cancel()
        await asyncio.gather(dying, return_exceptions=True)
        await bench.advance(31)
    while await next_sender(is_answered=True).deliver_due():
        await bench.advance(31)
    states = [await bench.outbox.state_of(job.id) for job in jobs]
    assert states == [DeliveryState.DELIVERED] * 12
    ids = {}
    for sent in (sent for poster in posters for sent in poster.sent):
        ids.setdefault(json.loads(sent.content)["id"], set()).add(sent.headers["webhook-id"])
    assert set(ids) == {job.id for job in jobs}
    assert all(len(seen) == 1 for seen in ids.values())


class BrokenOutbox:
    """Does not answer."""

    async def claim(self, owner, lease_s, limit):
        raise errors.JobStoreUnavailable("down")


async def test_sender_outlives_an_outbox_that_is_down():
    working = asyncio.create_task(
        Sender(BrokenOutbox(), FakePoster(), Signer([]), Limits(poll_s=0.005)).run()
    )
    await asyncio.sleep(0.05)
    assert not working.done()
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working


async def test_log_tells_neither_url_nor_body(capsys):
    bench, poster = MemoryBench(), FakePoster()
    await finished(bench)
    poster.answers[HOOK] = [Unreachable("10.0.0.1")]
    await sender(bench, poster).deliver_due()
    out = "".join(capsys.readouterr())
    assert "canary" not in out
    assert "10.0.0.1" not in out


def test_lease_shorter_than_the_timeout_is_refused():
    with pytest.raises(ValueError, match="lease_s"):
        Limits(timeout_s=30, lease_s=30)


async def test_signature_verifies_at_the_receiver(bench):
    await finished(bench)
    poster = FakePoster()
    await Sender(bench.outbox, poster, Signer([SECRET])).deliver_due()
    (sent,) = poster.sent
    assert Webhook(SECRET).verify(sent.content, sent.headers)["track_id"] == "é"


async def test_message_with_a_secret_of_its_own_is_signed_with_that_alone(bench):
    key, _ = await bench.keys.create("shop")
    own, poster = new_secret(), FakePoster()
    await bench.keys.sign_with(key.id, own)
    job = await bench.claimed("a", key_id=key.id, webhook=HOOK)
    await bench.jobs.cancel(job.id, "{}")
    await sender(bench, poster).deliver_due()
    (sent,) = poster.sent
    moment = datetime.fromtimestamp(int(sent.headers["webhook-timestamp"]), tz=UTC)
    signature = Webhook(own).sign(sent.headers["webhook-id"], moment, sent.content.decode())
    assert sent.headers["webhook-signature"] == signature
