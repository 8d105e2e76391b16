"""Waiting for jobs that end here or elsewhere."""

import asyncio

from serve_app.jobs.watch import Watch
from serve_app.testing.jobs import MemoryJobStore
from tests.builders import job_request


async def test_wait_ends_when_woken():
    watch = Watch(MemoryJobStore())
    waiting = asyncio.create_task(watch.wait(7, 30))
    await asyncio.sleep(0)
    watch.wake([6, 7])
    async with asyncio.timeout(5):
        await waiting


async def test_wait_ends_after_its_time():
    async with asyncio.timeout(5):
        await Watch(MemoryJobStore()).wait(7, 0.01)


async def test_look_wakes_those_whose_job_has_ended():
    store = MemoryJobStore()
    watch = Watch(store)
    ended, still_open = [await store.add(job_request(), max_open=9) for _ in range(2)]
    waits = [asyncio.create_task(watch.wait(job.id, 30)) for job in (ended, ended, still_open)]
    await asyncio.sleep(0)
    await store.cancel(ended.id)
    await watch.look()
    async with asyncio.timeout(30):
        await asyncio.gather(*waits[:2])
    await asyncio.sleep(0.05)
    assert not waits[2].done()
    waits[2].cancel()


async def test_looks_are_a_quarter_of_a_second_apart(monkeypatch):
    slept = []

    async def sleep(seconds):
        slept.append(seconds)

    watch = Watch(MemoryJobStore())
    waiting = asyncio.create_task(watch.wait(7, 30))
    await asyncio.sleep(0)
    with monkeypatch.context() as patch:
        patch.setattr(asyncio, "sleep", sleep)
        await watch.look()
    assert slept == [0.25]
    waiting.cancel()
    await asyncio.wait([waiting])
    assert watch._waiting == {}


async def test_one_who_stops_waiting_leaves_the_others_waiting():
    watch = Watch(MemoryJobStore())
    waits = [asyncio.create_task(watch.wait(7, 30)) for _ in range(3)]
    await asyncio.sleep(0)
    waits[0].cancel()
    await asyncio.wait(waits[:1])
    for _ in range(2):
        watch.wake([7])  # twice: before they have left
    async with asyncio.timeout(5):
        await asyncio.gather(*waits[1:])
    assert watch._waiting == {}


async def test_look_sleeps_while_nobody_waits():
    store = MemoryJobStore()
    job = await store.add(job_request(), max_open=9)
    watch = Watch(store)
    looking = asyncio.create_task(watch.look())
    assert await asyncio.wait([looking], timeout=0.6) == (set(), {looking})
    await store.cancel(job.id)
    async with asyncio.timeout(5):
        await asyncio.gather(watch.wait(job.id, 30), looking)
