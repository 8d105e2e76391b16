"""The driver against the in-memory store and a fake graph."""

import asyncio
import contextlib
from functools import partial

import pytest

from serve_app import errors
from serve_app.config import JobsConfig
from serve_app.jobs.driver import Driver
from serve_app.testing.graph import FakeGraph
from serve_app.testing.jobs import MemoryJobStore
from serve_app.types import JobState
from tests.builders import job_request, webhook_body

FAST = {
    "poll_s": 0.05,
    "retry_delay_s": 0.01,
    "max_retry_delay_s": 0.02,
    "outage_delay_s": 0.01,
    "lease_s": 1.0,
}


@contextlib.asynccontextmanager
async def driving(graph, store=None, body=webhook_body, **settings):
    store = store or MemoryJobStore()
    driver = Driver(store, graph, JobsConfig(**{**FAST, **settings}), body)
    driver.start()
    try:
        yield driver, store
    finally:
        await driver.close()


async def accept(driver, store, **changes):
    request = job_request(**changes)
    return await driver.accept(partial(store.add, request, 99, None, None), request.key_id)


async def settled(store, job_id):
    async with asyncio.timeout(30):
        while not (job := await store.get(job_id)).state.is_final:
            await asyncio.sleep(0.005)
    return job


async def test_driver_takes_a_job_and_settles_it():
    async with driving(FakeGraph()) as (driver, store):
        job = await accept(driver, store)
        done = await settled(store, job.id)
    assert done.state is JobState.SUCCESS
    assert done.result.keys == ("generations/a.png",)


async def test_driver_finds_a_job_nobody_took():
    async with driving(FakeGraph()) as (_driver, store):
        job = await store.add(job_request(), max_open=10)
        assert (await settled(store, job.id)).state is JobState.SUCCESS


async def test_driver_does_not_learn_the_load_of_a_model():
    graph = FakeGraph(duration_s=0.2)
    graph.load_left_s = 0.2
    async with driving(graph) as (driver, store):
        job = await accept(driver, store)
        await settled(store, job.id)
        assert driver.eta.estimate_s(job.request.spec, 0) < graph.duration_s


async def test_driver_runs_no_more_than_max_driven():
    graph = FakeGraph(duration_s=0.05)
    async with driving(graph, max_driven=2) as (driver, store):
        jobs = []
        most = 0
        for _ in range(5):
            jobs.append(await accept(driver, store))
            await asyncio.sleep(0)
            most = max(most, len(graph.at_work))
        for job in jobs:
            await settled(store, job.id)
    assert most <= 2
    assert len(graph.runs) == 5


async def test_driver_that_is_replaced_ends_its_jobs_and_takes_no_others():
    graph = FakeGraph(duration_s=0.2)
    async with driving(graph) as (driver, store):
        job = await accept(driver, store)
        late = await store.add(job_request(), max_open=10)
        await driver.drain(5)
        assert (await store.get(job.id)).state is JobState.SUCCESS
        assert graph.runs == {job.id: 1}
    assert (await store.get(late.id)).state is JobState.QUEUED


async def test_driver_that_is_replaced_hands_on_what_takes_too_long():
    graph = FakeGraph(duration_s=30)
    async with driving(graph) as (driver, store):
        job = await accept(driver, store)
        await driver.drain(0.05)
        assert driver.drives(job.id)
    assert (await store.get(job.id)).state is JobState.QUEUED


@pytest.mark.parametrize(
    "error", [errors.ReplicaLost(), errors.OutOfMemory()], ids=lambda e: e.code
)
async def test_driver_retries_what_may_pass(error):
    graph = FakeGraph(failures=[error])
    async with driving(graph) as (driver, store):
        job = await accept(driver, store)
        done = await settled(store, job.id)
    assert done.state is JobState.SUCCESS
    assert (graph.runs[job.id], done.attempts) == (2, 2)


async def test_driver_retries_at_once_the_first_time_alone():
    graph = FakeGraph(failures=[errors.ReplicaLost()] * 3)
    async with driving(graph, retry_delay_s=30, max_retry_delay_s=60) as (driver, store):
        job = await accept(driver, store)
        async with asyncio.timeout(30):
            while graph.runs[job.id] < 2:
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.1)
        assert graph.runs[job.id] == 2


async def test_driver_gives_up_on_a_job_that_kills_every_replica():
    graph = FakeGraph(failures=[errors.ReplicaLost()] * 9)
    async with driving(graph, max_attempts=3) as (driver, store):
        job = await accept(driver, store)
        done = await settled(store, job.id)
    assert (done.state, done.failure.code) == (JobState.FAILED, "replica_lost")
    assert graph.runs[job.id] == 3


async def test_driver_outlasts_an_outage_longer_than_max_attempts():
    graph = FakeGraph(failures=[errors.StorageUnavailable()] * 6)
    async with driving(graph, max_attempts=2) as (driver, store):
        job = await accept(driver, store)
        done = await settled(store, job.id)
    assert (done.state, graph.runs[job.id]) == (JobState.SUCCESS, 7)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidImage("init_image", "unreadable"), "invalid_image"),
        (errors.AddOnMisfit("vae", "The VAE soft does not fit"), "add_on_misfit"),
        (errors.NonFiniteLatents(), "non_finite_latents"),
        (ValueError("bug"), "generation_failed"),
    ],
    ids=["client", "add-on", "model", "bug"],
)
async def test_driver_fails_what_will_not_pass_at_once(error, code):
    graph = FakeGraph(failures=[error])
    async with driving(graph) as (driver, store):
        job = await accept(driver, store)
        done = await settled(store, job.id)
    assert (done.state, done.failure.code, graph.runs[job.id]) == (JobState.FAILED, code, 1)


async def test_driver_fails_a_job_over_its_time():
    graph = FakeGraph(duration_s=30)
    async with driving(graph, timeout_s=0.05, max_attempts=2) as (driver, store):
        job = await accept(driver, store)
        assert (await settled(store, job.id)).failure.code == "replica_lost"
    assert graph.stopped == [job.id, job.id]


async def test_driver_stops_the_work_on_a_job_cancelled_elsewhere():
    graph = FakeGraph(duration_s=30)
    async with driving(graph) as (driver, store):
        job = await accept(driver, store)
        await asyncio.sleep(0.01)
        await store.cancel(job.id)
        async with asyncio.timeout(30):
            while not graph.stopped:
                await asyncio.sleep(0.01)
    assert (await store.get(job.id)).state is JobState.CANCELLED


@pytest.mark.slow
async def test_driver_keeps_the_lease_of_a_long_job():
    # A lease that outlasts the stalls of a busy machine, and a job that outlasts two leases.
    graph, lease = FakeGraph(duration_s=5.5), {"lease_s": 2.5}
    async with (
        driving(graph, **lease) as (driver, store),
        driving(graph, store, **lease) as (_rival, _),
    ):
        job = await accept(driver, store)
        done = await settled(store, job.id)
    assert (graph.runs[job.id], done.attempts) == (1, 1)


async def test_driver_closed_gives_its_jobs_to_another():
    store, slow, fast = MemoryJobStore(), FakeGraph(duration_s=30), FakeGraph()
    async with driving(slow, store) as (driver, _):
        job = await accept(driver, store)
        await asyncio.sleep(0.01)
    assert (await store.get(job.id)).state is JobState.QUEUED
    async with driving(fast, store):
        assert (await settled(store, job.id)).state is JobState.SUCCESS


async def test_driver_takes_over_when_a_lease_runs_out():
    store = MemoryJobStore()
    job = await store.add(job_request(), max_open=10)
    await store.claim("dead", 0.05, 1)
    async with driving(FakeGraph(), store):
        done = await settled(store, job.id)
    assert (done.state, done.attempts) == (JobState.SUCCESS, 2)


async def test_driver_stores_progress_with_the_lease():
    async with driving(FakeGraph(duration_s=30), lease_s=1.0) as (driver, store):
        job = await accept(driver, store)
        async with asyncio.timeout(30):
            while (await store.get(job.id)).progress != 0.5:
                await asyncio.sleep(0.05)


async def test_driver_is_unhealthy_without_its_loops():
    async with driving(FakeGraph()) as (driver, _store):
        driver.check_health()
    with pytest.raises(RuntimeError, match="loop"):
        driver.check_health()


async def test_driver_survives_a_bug_in_the_store():
    async with driving(FakeGraph()) as (driver, store):
        claim, store.claim = store.claim, broken
        job = await store.add(job_request(), max_open=10)
        await asyncio.sleep(0.1)
        store.claim = claim
        assert (await settled(store, job.id)).state is JobState.SUCCESS
        driver.check_health()


async def broken(*_args, **_kwargs):
    raise ValueError("bug")


async def test_driver_taking_many_at_once_keeps_max_driven():
    graph = FakeGraph(duration_s=0.1)
    async with driving(graph, max_driven=2) as (driver, store):
        jobs = await asyncio.gather(*(accept(driver, store) for _ in range(20)))
        await asyncio.sleep(0.02)
        assert len(graph.at_work) == 2
        for job in jobs:
            await settled(store, job.id)


async def test_driver_gives_up_a_job_that_took_every_driver_with_it():
    store, graph = MemoryJobStore(), FakeGraph()
    job = await store.add(job_request(), max_open=10)
    for _ in range(3):
        await store.claim("dead", 0, 1)
    async with driving(graph, store, max_attempts=3):
        done = await settled(store, job.id)
    assert (done.state, graph.runs[job.id]) == (JobState.FAILED, 0)


@pytest.mark.parametrize("part", ["webhook_body", "succeed"])
async def test_driver_fails_a_job_that_cannot_be_settled(part):
    async with driving(FakeGraph()) as (driver, store):
        if part == "succeed":
            store.succeed = broken
        else:
            driver._webhook_body = broken
        job = await accept(driver, store, webhook="https://example.com/hook")
        assert (await settled(store, job.id)).state is JobState.FAILED


async def test_driver_settles_a_job_whose_time_cannot_be_learnt_from():
    async with driving(FakeGraph()) as (driver, store):
        driver.eta.observe = lambda *_args: 1 / 0
        job = await accept(driver, store)
        assert (await settled(store, job.id)).state is JobState.SUCCESS


async def test_driver_whose_own_lease_lapsed_runs_the_job_once():
    graph = FakeGraph(duration_s=0.3)
    async with driving(graph) as (driver, store):
        job = await accept(driver, store)
        store._rows[job.id].lease.until = 0.0
        await asyncio.sleep(0.1)
        await settled(store, job.id)
    assert graph.runs[job.id] == 1


async def test_driver_stopping_a_job_before_its_first_step_frees_the_place():
    async with driving(FakeGraph(duration_s=30), max_driven=1) as (driver, store):
        first = await accept(driver, store)
        await store.cancel(first.id)
        driver.stop([first.id])  # the task has not run yet
        second = await store.add(job_request(), max_open=10)
        async with asyncio.timeout(30):
            while (await store.get(second.id)).state is not JobState.PROCESSING:
                await asyncio.sleep(0.01)


async def test_driver_takes_guests_although_one_key_holds_all_places():
    graph = FakeGraph(duration_s=30)
    async with driving(graph, max_driven=3, max_driven_guests=2) as (driver, store):
        heavy = [await accept(driver, store, key_id="heavy") for _ in range(5)]
        light = [await accept(driver, store, key_id="light") for _ in range(3)]
        assert [driver.drives(job.id) for job in heavy] == [True, True, True, False, False]
        # Half of three places is one and a half, so two; the third job has to wait like the others.
        assert [driver.drives(job.id) for job in light] == [True, True, False]


async def test_driver_takes_no_guest_where_there_is_one_key_only():
    async with driving(FakeGraph(duration_s=30), max_driven=2) as (driver, store):
        jobs = [await accept(driver, store) for _ in range(4)]
        assert [driver.drives(job.id) for job in jobs] == [True, True, False, False]


async def test_driver_looks_less_often_while_nothing_is_at_work():
    class Counting(MemoryJobStore):
        claims = 0

        async def claim(self, *args):
            self.claims += 1
            return await super().claim(*args)

    store = Counting()
    async with driving(FakeGraph(duration_s=0.2), store, poll_s=0.05, lease_s=3.0) as (driver, _):
        await asyncio.sleep(1.0)
        assert store.claims < 10  # 0.05 s apart there were 20 at least
        async with asyncio.timeout(30):
            while store.claims < 2:
                await asyncio.sleep(0.01)
        job = await accept(driver, store)  # which wakes nobody: it is driven at once
        assert driver.drives(job.id)
        await settled(store, job.id)
        late = await store.add(job_request(), max_open=9)  # by another process
        assert (await settled(store, late.id)).state is JobState.SUCCESS
