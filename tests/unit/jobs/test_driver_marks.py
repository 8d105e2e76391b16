"""What a driver leaves of runs that went wrong: a log line with the job, a count of errors."""

import asyncio

import pytest
import structlog

from serve_app import errors
from serve_app.telemetry import tally
from serve_app.testing.graph import FakeGraph
from serve_app.testing.jobs import MemoryJobStore
from serve_app.types import JobState
from tests.builders import job_request
from tests.unit.jobs.test_driver import accept, driving, settled


def lines_of(event, lines):
    return [line for line in lines if line["event"] == event]


@pytest.fixture
def lines():
    context = [structlog.contextvars.merge_contextvars]
    with structlog.testing.capture_logs(processors=context) as lines:
        yield lines


async def test_run_that_is_to_be_repeated_leaves_a_line_with_its_job(lines):
    """As when a replica was killed, which Ray tells the driver."""
    graph = FakeGraph(failures=[errors.ReplicaLost("ActorDiedError")])
    async with driving(graph) as (driver, store):
        job = await accept(driver, store)
        assert (await settled(store, job.id)).state is JobState.SUCCESS
    (line,) = lines_of("job_retried", lines)
    assert (line["job_id"], line["model_id"], line["attempts"]) == (job.id, "tiny", 1)
    assert (line["code"], line["reason"]) == ("replica_lost", "ActorDiedError")
    (again,) = lines_of("job_run_again", lines)
    assert (again["job_id"], again["attempts"]) == (job.id, 2)


async def test_job_that_is_taken_over_leaves_a_line_with_its_id(lines):
    store = MemoryJobStore()
    job = await store.add(job_request(), 10)
    await store.claim("dead", 0.0, 5)
    async with driving(FakeGraph(), store), asyncio.timeout(10):
        while not (await store.get(job.id)).state.is_final:
            await asyncio.sleep(0.01)
    assert lines_of("job_retried", lines) == []
    (line,) = lines_of("job_run_again", lines)
    assert (line["job_id"], line["attempts"]) == (job.id, 2)


async def test_failed_job_leaves_a_line_and_is_counted_once(lines):
    graph = FakeGraph(failures=[errors.NonFiniteLatents("tiny")])
    series = ("non_finite_latents", tally.JOB, "key_driver")
    before = tally.ERRORS.errors[series]
    async with driving(graph) as (driver, store):
        job = await accept(driver, store, key_id="key_driver")
        await settled(store, job.id)
        await settled(store, (await accept(driver, store, key_id="key_driver")).id)
    (line,) = lines_of("job_failed", lines)
    assert (line["job_id"], line["code"]) == (job.id, "non_finite_latents")
    assert tally.ERRORS.errors[series] == before + 1
