"""Places in the queue."""

import asyncio
from types import SimpleNamespace

import pytest

from serve_app.jobs import queue as module
from serve_app.jobs.protocol import Lease
from serve_app.jobs.queue import Queue
from serve_app.models.revision import canary_id
from serve_app.testing.jobs import MemoryJobStore
from tests.builders import job_request, spec


class Store(MemoryJobStore):
    looks = 0

    async def waiting(self, model_id):
        self.looks += 1
        return await super().waiting(model_id)

    async def turns(self):
        self.looks += 1
        return await super().turns()


async def add(store, count, **changes):
    return [await store.add(job_request(**changes), max_open=99) for _ in range(count)]


async def test_places_count_the_jobs_of_the_model_that_came_before_and_wait():
    store = Store()
    queue, jobs = Queue(store), await add(store, 4)
    assert [await queue.place(job) for job in jobs] == [1, 2, 3, 4]
    assert store.looks == 1
    queue.saw(jobs[0].request.spec.model_id, {jobs[0].id, jobs[2].id})
    jobs = await store.claim("a", 60, 9)  # now others hold them all, and the first one paints
    assert [await queue.place(job) for job in jobs] == [0, 1, 0, 2]


async def test_job_that_ended_or_whose_steps_the_store_knows_does_not_wait():
    store = Store()
    queue, (first, second) = Queue(store), await add(store, 2)
    await store.claim("a", 60, 9)
    await store.renew("a", 60, {first.id: 0.5})
    assert await queue.place(await store.get(first.id)) == 0
    assert await queue.place(second) == 1
    await store.cancel(second.id)
    assert await queue.place(await store.get(second.id)) == 0
    assert await queue.place(first) == 0  # as it was read long ago


async def test_job_whose_run_was_lost_waits_again():
    store = Store()
    queue, (first,) = Queue(store), await add(store, 1)
    (held,) = await store.claim("a", 60, 1)
    queue.saw(held.request.spec.model_id, {first.id})
    assert await queue.place(held) == 0
    await store.release("a", [first.id])
    assert await queue.place(await store.get(first.id)) == 1


async def test_new_job_is_looked_for_at_once():
    store = Store()
    queue, jobs = Queue(store), await add(store, 1)
    assert await queue.place(jobs[0]) == 1
    jobs += await add(store, 1)
    assert await queue.place(jobs[1]) == 2


async def test_new_job_of_a_light_key_is_not_behind_all_of_a_heavy_one_not_even_for_a_moment():
    store = Store()
    queue, heavy = Queue(store), await add(store, 5, key_id="heavy")
    assert await queue.place(heavy[4]) == 5
    (light,) = await add(store, 1, key_id="light")
    assert await queue.place(light) == 2


async def test_jobs_ahead_are_those_at_work_and_those_whose_turn_comes_before():
    store = Store()
    queue, begun = Queue(store), await add(store, 2, key_id="heavy")
    await store.claim("a", 60, 9)
    heavy = await add(store, 20, key_id="heavy")
    (light,) = await add(store, 1, key_id="light", spec=spec(model_id="other"))
    assert await queue.ahead(light) == 2
    assert await queue.ahead(heavy[0]) == 3
    assert await queue.ahead(heavy[-1]) == 2 + 20
    assert await queue.ahead(begun[0]) == 0  # it does not wait


async def test_one_look_at_the_turns_serves_all_who_ask():
    store = Store()
    queue, jobs = Queue(store), await add(store, 5)
    assert await asyncio.gather(*map(queue.ahead, jobs)) == [0, 1, 2, 3, 4]
    assert store.looks == 1
    (later,) = await add(store, 1)
    assert await queue.ahead(later) == 5


async def test_jobs_that_are_accepted_here_need_no_look_of_their_own():
    store = Store()
    queue, (first,) = Queue(store), await add(store, 1, key_id="heavy")
    assert (await queue.place(first), await queue.ahead(first)) == (1, 0)
    assert store.looks == 2
    begun = await store.add(job_request(key_id="other"), 99, lease=Lease("a", 60))
    accepted = [begun, *await add(store, 3, key_id="heavy"), *await add(store, 1, key_id="light")]
    for job in accepted:
        queue.joined(job)
    # One is at work; the light key's comes before all but the first one of the heavy key.
    assert [await queue.ahead(job) for job in accepted[1:]] == [3, 4, 5, 2]
    # Until it has made a step, the one that is at work has a place like all others.
    assert [await queue.place(job) for job in accepted] == [2, 4, 5, 6, 3]
    assert store.looks == 2


async def test_place_of_a_job_accepted_here_holds_when_the_store_is_asked_again(monkeypatch):
    store = Store()
    queue, jobs = Queue(store), await add(store, 2)
    await queue.place(jobs[0])
    (later,) = await add(store, 1)
    queue.joined(later)
    assert await queue.place(later) == 3
    monkeypatch.setattr("serve_app.jobs.queue._FRESH_S", -1.0)
    assert await queue.place(later) == 3


async def test_jobs_seen_at_work_are_not_remembered_for_ever():
    queue = Queue(MemoryJobStore())
    for number in range(20_000):
        queue.saw("m", {number})
    assert len(queue._of_models["m"].begun) < 5_000


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


async def test_look_is_good_for_a_quarter_of_a_second(clock):
    store = Store()
    queue, (first, second) = Queue(store), await add(store, 2)
    assert (await queue.place(second), await queue.ahead(second)) == (2, 1)
    await store.cancel(first.id)
    clock[0] += 0.24
    assert (await queue.place(second), await queue.ahead(second)) == (2, 1)
    clock[0] += 0.01
    assert (await queue.place(second), await queue.ahead(second)) == (1, 0)
    assert store.looks == 4


async def test_jobs_join_no_line_that_is_old(clock):
    store = Store()
    queue, (first,) = Queue(store), await add(store, 1)
    assert (await queue.place(first), await queue.ahead(first)) == (1, 0)
    clock[0] += 0.25
    await store.cancel(first.id)
    (later,) = await add(store, 1)
    queue.joined(later)
    assert (await queue.place(later), await queue.ahead(later)) == (1, 0)


async def test_job_that_its_caller_holds_waits_for_no_driver_and_is_one_more_at_work(clock):
    store = Store()
    queue, (first,) = Queue(store), await add(store, 1)
    assert await queue.ahead(first) == 0
    for number in (1, 2):
        queue.joined(await store.add(job_request(), 99, lease=Lease("a", 60)))
        (later,) = await add(store, 1)
        queue.joined(later)
        assert await queue.ahead(later) == 2 * number
    assert store.looks == 1


async def test_canary_waits_in_the_line_of_its_model(clock):
    store = Store()
    queue, (first,) = Queue(store), await add(store, 1)
    (second,) = await add(store, 1, spec=spec(model_id=canary_id("tiny")))
    assert await queue.place(second) == 2
    queue.saw(canary_id("tiny"), [first.id])
    assert await queue.place(second) == 1
    queue.joined(third := (await add(store, 1))[0])
    assert await queue.place(third) == 2


async def test_jobs_at_work_are_forgotten_with_the_next_look(clock):
    store = Store()
    queue, (first, second) = Queue(store), await add(store, 2)
    queue.saw("tiny", [first.id, 7])
    queue.saw("tiny", [])
    assert await queue.place(second) == 1
    clock[0] += 1
    await store.cancel(first.id)
    assert await queue.place(second) == 1
    assert queue._of_models["tiny"].begun == set()
