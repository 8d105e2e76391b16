"""The sweeper removes what has expired and outlives parts that are down."""

import asyncio

from serve_app import errors
from serve_app.config import JobsConfig, StorageConfig
from serve_app.jobs.sweeper import Sweeper
from serve_app.testing.jobs import MemoryJobStore
from serve_app.testing.storage import MemoryStore
from serve_app.types import JobState
from tests.builders import job_request


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


class DownStore(MemoryStore):
    async def expire(self, folder, older_than_s):
        raise errors.StorageUnavailable("down")


def sweeper(jobs, files, **settings):
    return Sweeper(
        jobs,
        jobs.outbox,
        files,
        JobsConfig(retention_s=100, **settings),
        StorageConfig(temp_ttl_s=50, input_ttl_s=20),
    )


async def test_sweep_removes_only_what_is_too_old():
    clock = Clock()
    jobs, files = MemoryJobStore(clock), MemoryStore(clock)
    for key in ("temp/a.png", "inputs/a", "generations/a.png"):
        await files.put(key, b"x", "image/png")
    job = await jobs.add(job_request(), max_open=9)
    await jobs.cancel(job.id)
    clock.now += 30
    await sweeper(jobs, files).sweep()
    assert await files.get("inputs/a") is None
    assert await files.get("temp/a.png") == b"x"
    clock.now += 80
    await sweeper(jobs, files).sweep()
    assert await files.get("temp/a.png") is None
    assert await files.get("generations/a.png") == b"x"
    assert await jobs.get(job.id) is None


async def test_sweep_never_removes_an_open_job():
    clock = Clock()
    jobs = MemoryJobStore(clock)
    job = await jobs.add(job_request(), max_open=9)
    clock.now += 1e6
    await sweeper(jobs, MemoryStore(clock)).sweep()
    assert (await jobs.get(job.id)).state is JobState.QUEUED


async def test_sweep_goes_on_when_the_object_store_is_down():
    clock = Clock()
    jobs = MemoryJobStore(clock)
    job = await jobs.add(job_request(), max_open=9)
    await jobs.cancel(job.id)
    clock.now += 1000
    await sweeper(jobs, DownStore(clock)).sweep()
    assert await jobs.get(job.id) is None


class AwayStore(MemoryJobStore):
    """Answers from the second question on."""

    num_asked = 0

    async def expire(self, older_than_s):
        self.num_asked += 1
        if self.num_asked == 1:
            raise errors.JobStoreUnavailable("down")
        return await super().expire(older_than_s)


async def test_sweeper_outlives_an_outage_of_the_database():
    jobs = AwayStore()
    running = asyncio.create_task(sweeper(jobs, MemoryStore(), sweep_s=0.001).run())
    async with asyncio.timeout(10):
        while jobs.num_asked < 3 and not running.done():
            await asyncio.sleep(0.001)
    assert not running.done()
    running.cancel()
