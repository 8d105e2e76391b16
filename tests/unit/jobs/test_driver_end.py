"""How jobs end at a driver: cancelled, settled by others, given back."""

import asyncio
from collections import defaultdict

import pytest
import structlog

from serve_app.config import JobsConfig
from serve_app.jobs.driver import Driver
from serve_app.telemetry import tally
from serve_app.testing.graph import FakeGraph
from serve_app.testing.jobs import MemoryJobStore
from serve_app.types import JobState
from tests.builders import job_request
from tests.unit.jobs.test_driver import accept, driving, settled

HOOK = "https://example.com/hook"


class Noting(MemoryJobStore):
    """Notes who asks for what."""

    def __init__(self):
        super().__init__()
        self.asked = defaultdict(list)

    async def cancel(self, job_id, body=None):
        self.asked["cancel"].append(body)
        return await super().cancel(job_id, body)

    async def renew(self, owner, lease_s, progress):
        self.asked["renew"].append(progress)
        return await super().renew(owner, lease_s, progress)

    async def release(self, owner, job_ids, *given, **more):
        self.asked["release"].append(list(job_ids))
        await super().release(owner, job_ids, *given, **more)


@pytest.fixture
def told():
    return []


@pytest.fixture
def body(told):
    async def make(job, outcome):
        told.append((job.id, getattr(outcome, "code", "success")))
        return f"body of {job.id}"

    return make


async def test_cancelled_job_has_a_body_only_where_somebody_is_to_be_told(body, told):
    async with driving(FakeGraph(30), Noting(), body) as (driver, store):
        with_hook = await accept(driver, store, webhook=HOOK)
        without = await accept(driver, store)
        for job in (with_hook, without):
            await driver.cancel(job)
            assert (await store.get(job.id)).state is JobState.CANCELLED
        await driver.cancel(await store.get(with_hook.id))  # a final one stays as it is
    assert told == [(with_hook.id, "cancelled")]
    assert store.asked["cancel"] == [f"body of {with_hook.id}", None, None]


async def test_settled_job_has_a_body_only_where_somebody_is_to_be_told(body, told):
    async with driving(FakeGraph(), body=body) as (driver, store):
        jobs = [await accept(driver, store, webhook=hook) for hook in (HOOK, None)]
        for job in jobs:
            await settled(store, job.id)
        (message,) = await store.outbox.claim("sender", 60, 9)
    assert told == [(jobs[0].id, "success")]
    assert (message.job_id, message.body) == (jobs[0].id, f"body of {jobs[0].id}")


async def test_job_that_succeeds_leaves_no_error():
    before = dict(tally.ERRORS.errors)
    with structlog.testing.capture_logs() as lines:
        async with driving(FakeGraph()) as (driver, store):
            await settled(store, (await accept(driver, store)).id)
    assert {line["log_level"] for line in lines} <= {"debug", "info"}
    assert [line["event"] for line in lines if "settled" in line["event"]] == ["job_settled"]
    assert dict(tally.ERRORS.errors) == before


async def test_failure_that_another_driver_settled_is_not_counted_here():
    graph, before = FakeGraph(0.05, [ValueError("bug")]), dict(tally.ERRORS.errors)
    with structlog.testing.capture_logs() as lines:
        async with driving(graph) as (driver, store):
            job = await accept(driver, store)
            await store.release(driver.owner, [job.id], 600)
            async with asyncio.timeout(5):
                while driver.drives(job.id):
                    await asyncio.sleep(0.01)
    assert [line["event"] for line in lines if "settled" in line["event"]] == [
        "job_settled_elsewhere"
    ]
    assert dict(tally.ERRORS.errors) == before


async def test_driver_with_nothing_at_work_asks_for_no_lease_and_gives_nothing_back(body):
    store = Noting()
    driver = Driver(store, FakeGraph(), JobsConfig(), body)
    await driver._renew()
    await driver.close()
    assert store.asked == {}
    driver.check_health()  # of one that was never started


async def test_driver_gives_back_what_it_has_at_work(body):
    async with driving(FakeGraph(30), Noting(), body) as (driver, store):
        jobs = [await accept(driver, store) for _ in range(2)]
        await driver._renew()
    assert store.asked["renew"] == [{job.id: 0.0 for job in jobs}]
    assert store.asked["release"] == [[job.id for job in jobs]]


async def test_lines_of_a_job_name_the_call_that_brought_it():
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(address="of the call that brought it")
    context = [structlog.contextvars.merge_contextvars]
    with structlog.testing.capture_logs(processors=context) as lines:
        async with driving(FakeGraph()) as (driver, store):
            job = await accept(driver, store, call_id="call-7")
            await settled(store, job.id)
    (line,) = [line for line in lines if line["event"] == "job_settled"]
    assert (line["call_id"], line["job_id"], line["model_id"]) == ("call-7", job.id, "tiny")
    assert "address" not in line  # a job outlives its call, and takes nothing of it along
    assert "job_id" not in structlog.contextvars.get_contextvars()


async def test_job_that_was_driven_before_is_claimed_with_a_warning_and_a_new_one_without():
    store = MemoryJobStore()
    again, new = [await store.add(job_request(), max_open=9) for _ in range(2)]
    await store.claim("dead", 0.0, 1)
    with structlog.testing.capture_logs() as lines:
        async with driving(FakeGraph(), store):
            for job in (again, new):
                await settled(store, job.id)
    warned = [line["job_id"] for line in lines if line["event"] == "job_run_again"]
    assert warned == [again.id]
