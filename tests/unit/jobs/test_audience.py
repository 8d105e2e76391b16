"""Who watches which jobs."""

import asyncio

import pytest

from serve_app import errors
from serve_app.config import EventsConfig
from serve_app.jobs.audience import Audience
from serve_app.jobs.queue import Queue
from serve_app.testing.graph import FakeGraph
from serve_app.testing.jobs import MemoryJobStore
from serve_app.types import SafetyAction, Sight
from tests.builders import job_request


class Bench:
    def __init__(self, *, has_keys=True, **settings):
        self.graph, self.store = FakeGraph(), MemoryJobStore()
        self.queue = Queue(self.store)
        self.audience = Audience(
            self.graph,
            self.queue,
            EventsConfig(**settings),
            tells_keys_apart=has_keys,
        )

    async def job(self, key_id="open"):
        return await self.store.add(job_request(key_id=key_id), max_open=99)


async def test_one_question_serves_all_who_watch_and_none_is_asked_for_nobody():
    bench = Bench()
    job, other = await bench.job(), await bench.job()
    await bench.audience.look()
    with (
        bench.audience.seat(job, has_previews=False) as first,
        bench.audience.seat(job, has_previews=True) as second,
        bench.audience.seat(other, has_previews=False) as third,
    ):
        bench.graph.sights[job.id] = Sight(3, 10, b"jpeg", 2)
        await bench.audience.look()
        assert first.sight == second.sight == Sight(3, 10, b"jpeg", 2)
        assert third.sight is None
        bench.graph.sights[job.id] = Sight(4, 10)
        await bench.audience.look()
        assert second.sight == Sight(4, 10, b"jpeg", 2)  # what is here is not sent again
    await bench.audience.look()
    assert bench.graph.looks == [{job.id: -1, other.id: None}, {job.id: 2, other.id: None}]


async def test_news_wake_only_whom_they_concern():
    bench = Bench()
    job = await bench.job()
    bench.graph.sights[job.id] = Sight(3, 10)
    with bench.audience.seat(job, has_previews=False) as seat:
        await bench.audience.look()
        assert seat.news.is_set()
        seat.news.clear()
        await bench.audience.look()
        assert not seat.news.is_set()
        del bench.graph.sights[job.id]
        await bench.audience.look()
        assert seat.sight == Sight(3, 10)  # an answer that is missing takes nothing back


async def test_job_that_is_run_again_shows_no_preview_of_the_lost_run():
    bench = Bench()
    job = await bench.job()
    with bench.audience.seat(job, has_previews=True) as seat:
        bench.graph.sights[job.id] = Sight(8, 10, b"jpeg", 7)
        await bench.audience.look()
        bench.graph.sights[job.id] = Sight(1, 10)
        await bench.audience.look()
        assert seat.sight == Sight(1, 10)


async def test_looks_go_on_while_somebody_watches_and_survive_errors():
    bench = Bench(look_s=0.05)
    job = await bench.job()

    async def fail(*_args):
        del bench.graph.look
        raise ValueError("a bug")

    bench.graph.look = fail
    running = asyncio.create_task(bench.audience.run())
    try:
        with bench.audience.seat(job, has_previews=False):
            async with asyncio.timeout(5):
                while len(bench.graph.looks) < 2:
                    await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        looks = len(bench.graph.looks)
        await asyncio.sleep(0.15)
        assert len(bench.graph.looks) == looks
    finally:
        running.cancel()


async def test_nobody_looks_while_nobody_watches(monkeypatch):
    bench = Bench(look_s=0.05)
    job, num_looks = await bench.job(), 0
    look = bench.audience.look

    async def counted():
        nonlocal num_looks
        num_looks += 1
        await look()

    monkeypatch.setattr(bench.audience, "look", counted)
    running = asyncio.create_task(bench.audience.run())
    try:
        for _ in range(2):  # who comes again wakes it again
            with bench.audience.seat(job, has_previews=False):
                before = num_looks
                async with asyncio.timeout(5):
                    while num_looks == before:
                        await asyncio.sleep(0.01)
            await asyncio.sleep(0.06)  # a look may have begun
            before = num_looks
            await asyncio.sleep(0.15)
            assert num_looks == before
    finally:
        running.cancel()


async def test_preview_that_is_here_stays_until_another_comes_or_the_run_is_lost():
    bench = Bench()
    job = await bench.job()
    seen = []
    with bench.audience.seat(job, has_previews=True) as seat:
        for sight in (
            Sight(4, 10, b"one", 4),
            Sight(4, 10),  # no step since, and nothing newer
            Sight(6, 10),
            Sight(6, 10, b"two", 6),
            Sight(5, 10),
        ):
            bench.graph.sights[job.id] = sight
            await bench.audience.look()
            seen.append((seat.sight.step, seat.sight.preview, seat.sight.preview_step))
    one, two, lost = (b"one", 4), (b"two", 6), (b"", -1)
    assert seen == [(4, *one), (4, *one), (6, *one), (6, *two), (5, *lost)]
    assert [asked[job.id] for asked in bench.graph.looks] == [-1, 4, 4, 4, 6]


async def test_job_in_the_queue_wakes_who_watches_it_at_each_look():
    bench = Bench()
    job = await bench.job()
    with bench.audience.seat(job, has_previews=False) as seat:
        for _ in range(2):
            await bench.audience.look()
            assert seat.news.is_set()
            seat.news.clear()


async def test_watched_jobs_that_are_seen_at_work_leave_the_queue():
    bench = Bench()
    first, second = [await bench.job() for _ in range(2)]
    bench.graph.sights[first.id] = Sight(0, 0)
    assert await bench.queue.place(second) == 2
    with bench.audience.seat(first, has_previews=False):
        await bench.audience.look()
    assert await bench.queue.place(second) == 1


async def test_places_are_bounded_and_free_again_when_a_stream_ends():
    bench = Bench(max_streams=3, max_streams_per_key=2)
    a, b, c = [await bench.job(name) for name in ("key_a", "key_b", "key_c")]
    with bench.audience.seat(a, has_previews=False):
        with bench.audience.seat(a, has_previews=False):
            with pytest.raises(errors.RateLimited) as rate:
                bench.audience.seat(a, has_previews=False).__enter__()
            assert rate.value.retry_after_s == 10
        with (
            bench.audience.seat(a, has_previews=False),
            bench.audience.seat(b, has_previews=False),
            pytest.raises(errors.Overloaded) as full,
        ):
            bench.audience.seat(c, has_previews=False).__enter__()
        assert full.value.retry_after_s == 10
    with bench.audience.seat(c, has_previews=False):
        assert dict(bench.audience._taken) == {"key_c": 1}
        assert (bench.audience.num_streams, bench.audience.refused) == (1, 2)


async def test_open_service_has_no_share_per_key():
    bench = Bench(has_keys=False, max_streams=3, max_streams_per_key=1)
    job = await bench.job()
    with (
        bench.audience.seat(job, has_previews=False),
        bench.audience.seat(job, has_previews=False) as seat,
    ):
        assert seat.watched.job == job


async def test_job_whose_pictures_are_checked_shows_no_preview():
    bench = Bench()
    request = job_request(safety=SafetyAction.BLUR)
    job = await bench.store.add(request, max_open=9)
    with bench.audience.seat(job, has_previews=True) as seat:
        await bench.audience.look()
        assert not seat.has_previews
    assert bench.graph.looks == [{job.id: None}]
