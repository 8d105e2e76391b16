"""The sweeper removes what has expired and outlives parts that are down."""

import asyncio

import pytest

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


class Noted:
    """A part that notes what it is asked to remove."""

    def __init__(self, asked, name):
        self._asked, self._name = asked, name

    async def ensure_lifecycle(self):
        self._asked.append((self._name, "lifecycle"))

    async def expire(self, *what):
        self._asked.append((self._name, *what))


@pytest.mark.parametrize(
    ("retention_s", "result_ttl_s", "more"),
    [
        (0, 0, []),
        (100, 0, [("jobs", 100), ("outbox", 100)]),
        (0, 70, [("files", "generations", 70)]),
    ],
    ids=["for-ever", "rows", "results"],
)
async def test_sweep_asks_for_what_the_settings_give_a_life(retention_s, result_ttl_s, more):
    asked = []
    lives = {"temp_ttl_s": 50, "input_ttl_s": 20, "result_ttl_s": result_ttl_s}
    parts = [Noted(asked, name) for name in ("jobs", "outbox", "files")]
    await Sweeper(*parts, JobsConfig(retention_s=retention_s), StorageConfig(**lives)).sweep()
    always = [("files", "lifecycle"), ("files", "temp", 50), ("files", "inputs", 20)]
    assert sorted(asked) == sorted([*always, *more])


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
