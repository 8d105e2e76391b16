"""What clients and operators see while the database, the store or the safety check is away."""

import json

import pytest

from serve_app import errors
from serve_app.api.replies import present
from serve_app.config import HttpConfig
from serve_app.service import dependencies
from serve_app.types import JobState
from tests.builders import job_request
from tests.unit.service.test_generation import Bench


class Away:
    """Takes the database away: its jobs and its keys."""

    def __init__(self, bench, monkeypatch):
        self.is_away = False
        for store, names in (
            (bench.jobs, ("get", "count_open", "oldest_open_s", "waiting")),
            (bench.keys, ("verify",)),
            (bench.jobs.outbox, ("state_of",)),
        ):
            for name in names:
                monkeypatch.setattr(store, name, self.guarded(getattr(store, name)))

    def guarded(self, method):
        async def call(*args, **kwargs):
            if self.is_away:
                raise errors.JobStoreUnavailable("down")
            return await method(*args, **kwargs)

        return call


@pytest.fixture
async def bench():
    bench = Bench()
    bench.driver.start()
    yield bench
    await bench.driver.close()


@pytest.fixture
def away(bench, monkeypatch):
    return Away(bench, monkeypatch)


async def test_job_that_is_alive_is_processing_for_who_polls(bench, away):
    bench.graph.duration_s = 30
    key, secret = await bench.keys.create("me")
    job = await bench.service.accept(job_request(key_id=key.id))
    await bench.service.identify(secret)
    away.is_away = True
    assert await bench.service.identify(secret) == key.id
    seen = await bench.service.fetch(job.id, key.id)
    assert (seen.id, seen.state) == (job.id, JobState.PROCESSING)
    assert seen.progress == 0.5  # live: the replicas are asked
    assert await bench.service.eta_s(seen) > 0
    assert await bench.service.queue_place(seen) == 0


async def test_accepted_call_and_polls_are_answered_while_the_database_is_away(bench, away):
    bench.graph.duration_s = 30
    key, _ = await bench.keys.create("me")
    job = await bench.service.accept(job_request(key_id=key.id))
    http = HttpConfig()
    away.is_away = True
    accepted = json.loads((await present.generated(job, bench.service, http)).body)
    assert (accepted["status"], accepted["queue_place"]) == ("processing", 0)
    seen = await bench.service.fetch(job.id, key.id)
    polled = json.loads((await present.fetched(seen, bench.service, http, "http://a")).body)
    assert polled["status"] == "processing"


async def test_job_that_was_seen_to_end_has_ended(bench, away):
    job = await bench.service.accept(job_request(key_id="key_a", webhook="http://x/"))
    done = await bench.service.wait(job.id, 5, cancel_if_left=False)
    away.is_away = True
    assert await bench.service.fetch(job.id, "key_a") == done
    assert await bench.service.webhook_status(done) == ""


async def test_job_of_another_key_or_one_that_was_never_seen_is_not_shown(bench, away):
    job = await bench.service.accept(job_request(key_id="key_a"))
    away.is_away = True
    for job_id, key_id in ((job.id, "key_b"), (7, "key_a")):
        with pytest.raises(errors.JobStoreUnavailable):
            await bench.service.fetch(job_id, key_id)


async def test_secret_that_was_never_seen_or_was_wrong_is_not_let_in(bench, away):
    _, secret = await bench.keys.create("me")
    with pytest.raises(errors.InvalidKey):
        await bench.service.identify(secret[:-1])
    away.is_away = True
    for one in (secret, secret[:-1]):
        with pytest.raises(errors.JobStoreUnavailable):
            await bench.service.identify(one)


async def test_revoked_key_is_out_as_soon_as_the_database_answers(bench, away):
    key, secret = await bench.keys.create("me")
    await bench.service.identify(secret)
    await bench.keys.revoke(key.id)
    with pytest.raises(errors.InvalidKey):
        await bench.service.identify(secret)


async def test_readiness_names_the_parts_that_do_not_answer(bench, away, monkeypatch):
    monkeypatch.setattr(dependencies, "_FRESH_S", 0.0)
    assert (await bench.service.readiness()).parts == dict.fromkeys(
        ("database", "storage", "safety"), True
    )
    away.is_away = True
    bench.graph.away.add("safety")

    async def fail(_key):
        raise errors.StorageUnavailable("down")

    monkeypatch.setattr(bench.files, "get", fail)
    assert not any((await bench.service.readiness()).parts.values())


async def test_part_that_hangs_does_not_answer_and_one_look_serves_all(bench, monkeypatch):
    monkeypatch.setattr(dependencies, "_TIMEOUT_S", 0.05)
    asked = []

    async def hang(key):
        asked.append(key)
        await dependencies.asyncio.Event().wait()

    monkeypatch.setattr(bench.files, "get", hang)
    looks = [bench.service.readiness() for _ in range(5)]
    found = await dependencies.asyncio.gather(*looks)
    assert [one.parts["storage"] for one in found] == [False] * 5
    assert len(asked) == 1
