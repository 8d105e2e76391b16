"""When a driver looks, repeats and gives up; the polls are too rare to help."""

import asyncio
from functools import partial

import pytest
import structlog

from serve_app import errors
from serve_app.jobs import driver as module
from serve_app.jobs import watch
from serve_app.jobs.protocol import Idempotency
from serve_app.testing.graph import FakeGraph
from serve_app.testing.jobs import MemoryJobStore
from serve_app.types import JobState
from tests.builders import job_request
from tests.unit.jobs.test_driver import accept, driving, settled

RARE = {"poll_s": 600.0}


@pytest.fixture
def lines():
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.fixture
def no_jitter(monkeypatch):
    monkeypatch.setattr(module, "_jitter", lambda: 1.0)


def delays(lines, event):
    return [line["delay_s"] for line in lines if line["event"] == event]


async def test_job_that_may_be_a_repeat_is_claimed_at_once():
    async with driving(FakeGraph(), **RARE) as (driver, store):
        await asyncio.sleep(0.01)  # its first look is over
        add = partial(store.add, job_request(), 99, None, Idempotency("k", "d"))
        job = await driver.accept(add, "open", is_new=False)
        assert job.state is JobState.QUEUED
        assert (await settled(store, job.id)).attempts == 1


async def test_job_beyond_the_places_is_claimed_when_one_is_free():
    async with driving(FakeGraph(0.05), max_driven=1, **RARE) as (driver, store):
        jobs = [await accept(driver, store) for _ in range(3)]
        assert [driver.drives(job.id) for job in jobs] == [True, False, False]
        for job in jobs:
            assert (await settled(store, job.id)).state is JobState.SUCCESS


async def test_job_is_run_again_when_its_delay_is_over(no_jitter, lines):
    graph = FakeGraph(failures=[errors.ReplicaLost()] * 5)
    times = {"retry_delay_s": 0.01, "max_retry_delay_s": 0.05}
    async with driving(graph, **times, **RARE) as (driver, store):
        job = await accept(driver, store)
        assert (await settled(store, job.id)).attempts == 6
    assert delays(lines, "job_retried") == [0.0, 0.01, 0.02, 0.04, 0.05]


async def test_outage_has_a_delay_of_its_own_and_costs_no_attempt(no_jitter, lines):
    graph = FakeGraph(failures=[errors.StorageUnavailable("down")] * 3)
    async with driving(graph, outage_delay_s=0.02, **RARE) as (driver, store):
        job = await accept(driver, store)
        assert (await settled(store, job.id)).attempts == 1
    assert delays(lines, "job_retried") == [0.02] * 3


async def test_job_older_than_the_settings_allow_ends_with_the_outage():
    store = MemoryJobStore(clock=lambda: clock[0])
    clock = [0.0]  # long ago
    job = await store.add(job_request(), max_open=9)
    graph = FakeGraph(failures=[errors.StorageUnavailable("down")])
    async with driving(graph, store):
        done = await settled(store, job.id)
    assert (done.state, done.failure.code) == (JobState.FAILED, "storage_unavailable")


def test_jitter_takes_up_to_half_of_a_delay():
    drawn = [module._jitter() for _ in range(200)]
    assert 0.5 <= min(drawn) < 0.6
    assert 0.9 < max(drawn) <= 1.0


async def test_write_that_fails_is_repeated_ever_less_often(lines):
    class Down(MemoryJobStore):
        num_failures = 3

        async def succeed(self, *given):
            if self.num_failures:
                self.num_failures -= 1
                raise errors.JobStoreUnavailable("down")
            return await super().succeed(*given)

    async with driving(FakeGraph(), Down(), max_retry_delay_s=0.25) as (driver, store):
        job = await accept(driver, store)
        assert (await settled(store, job.id)).state is JobState.SUCCESS
    assert delays(lines, "settle_delayed") == [0.1, 0.2, 0.25]


@pytest.mark.parametrize("part", ["claim", "renew", "ended"])
async def test_loops_outlive_an_outage_and_a_bug(part, lines, monkeypatch):
    monkeypatch.setattr(module, "_RENEWALS_PER_LEASE", 50)  # one every 0.02 s
    monkeypatch.setattr(watch, "_LOOK_S", 0.02)

    failures = [errors.JobStoreUnavailable("down"), ValueError("bug")]

    class Failing(MemoryJobStore):
        num_asked = 0

    async def fail(self, *given):
        if failures:
            raise failures.pop()
        self.num_asked += 1
        return await getattr(MemoryJobStore, part)(self, *given)

    setattr(Failing, part, fail)
    async with driving(FakeGraph(30), Failing()) as (driver, store):
        job = await accept(driver, store)
        waiting = asyncio.create_task(driver.wait(job.id, 30))
        async with asyncio.timeout(10):
            while not store.num_asked:
                await asyncio.sleep(0.01)
        driver.check_health()
        waiting.cancel()
    levels = [line["log_level"] for line in lines if line["event"].endswith("_failed")]
    assert levels == ["error", "warning"]


async def test_driver_that_drains_keeps_its_leases(monkeypatch):
    monkeypatch.setattr(module, "_RENEWALS_PER_LEASE", 50)  # one every 0.02 s
    async with driving(FakeGraph(30), lease_s=1.0) as (driver, store):
        await accept(driver, store)
        await driver.drain(0.05)
        renewed, renew = asyncio.Event(), store.renew

        async def noted(*given):
            renewed.set()
            return await renew(*given)

        store.renew = noted
        await asyncio.wait_for(renewed.wait(), 5)
