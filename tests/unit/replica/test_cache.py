"""The cache on an event loop: who waits, who leaves, what fails. Decisions are the ledger's."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app import errors
from serve_app.config.pool import PoolConfig
from serve_app.replica.cache import ModelCache


class FakeLoader:
    """Models of one byte, unless said otherwise; loads end when they are let go."""

    def __init__(self):
        self.gate, self.reading = asyncio.Event(), asyncio.Event()
        self.gate.set()
        self.reading.set()
        self.sizes, self.real, self.loads, self.broken = {}, {}, Counter(), set()
        self.in_memory, self.most_bytes, self.num_tidied = {}, 0, 0

    async def estimate_bytes(self, key):
        await self.reading.wait()
        return self.sizes.get(key, 1)

    async def load(self, key):
        self.loads[key] += 1
        await self.gate.wait()
        if key in self.broken:
            raise OSError("truncated")
        size = self.real.get(key, self.sizes.get(key, 1))
        self.in_memory[key] = size
        self.most_bytes = max(self.most_bytes, sum(self.in_memory.values()))
        return key

    def measure_bytes(self, item):
        return self.real.get(item)

    async def unload(self, key, item):
        assert key == item
        del self.in_memory[key]

    async def tidy(self, key):
        self.num_tidied += 1


def make(loader, budget=2, **config):
    values = {"memory_bytes": budget, "turn_s": 0.0, "retry_load_s": 0.0} | config
    return ModelCache(loader, PoolConfig(**values))


async def use(cache, key, until=None):
    async with cache.use(key) as item:
        assert item == key
        if until is not None:
            await until.wait()


async def settled(*tasks):
    """Let everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)
    return [task.done() for task in tasks]


async def test_model_is_loaded_once_for_all_who_wait():
    cache = make(loader := FakeLoader())
    await asyncio.gather(*(use(cache, "a") for _ in range(5)))
    await use(cache, "a")
    assert loader.loads == {"a": 1}
    snapshot = cache.snapshot()
    assert (snapshot.hits, snapshot.waits, snapshot.loads, snapshot.held) == (1, 5, 1, 1)


async def test_snapshot_counts_what_is_here_and_who_waits():
    cache = make(loader := FakeLoader(), budget=5)
    loader.real["a"] = 3
    done = asyncio.Event()
    user = asyncio.create_task(use(cache, "a", done))
    await settled()
    loader.gate.clear()
    waiting = [asyncio.create_task(use(cache, key)) for key in "bbc"]
    await settled()
    snapshot = cache.snapshot()
    assert (snapshot.held, snapshot.used_bytes, snapshot.waiting) == (1, 3 + 1, 3)
    assert (snapshot.hits, snapshot.waits, snapshot.loads) == (0, 4, 1)
    occupancy = cache.occupancy()
    assert (occupancy.held, occupancy.loading, occupancy.used) == (["a"], ["b", "c"], 0.8)
    done.set()
    loader.gate.set()
    await asyncio.gather(user, *waiting)
    assert cache.snapshot().waiting == 0


async def test_model_in_use_stays_although_another_waits():
    cache = make(loader := FakeLoader(), budget=1)
    done = asyncio.Event()
    first = asyncio.create_task(use(cache, "a", done))
    await settled()
    second = asyncio.create_task(use(cache, "b"))
    assert await settled(first, second) == [False, False]
    assert loader.in_memory == {"a": 1}
    done.set()
    await asyncio.gather(first, second)
    assert loader.most_bytes == 1
    assert cache.snapshot().evictions == 1
    assert loader.num_tidied == 1


async def test_cancelled_caller_leaves_the_load_to_the_others():
    cache = make(loader := FakeLoader())
    loader.gate.clear()
    first, second = (asyncio.create_task(use(cache, "a")) for _ in range(2))
    await settled()
    first.cancel()
    await settled()
    loader.gate.set()
    await second
    assert first.cancelled()
    assert loader.loads == {"a": 1}
    await use(cache, "b")
    await use(cache, "c")  # nothing is left in use


async def test_caller_cancelled_together_with_its_grant_holds_nothing():
    cache = make(loader := FakeLoader(), budget=1)
    loader.gate.clear()
    caller = asyncio.create_task(use(cache, "a"))
    await settled()
    loader.gate.set()
    while not loader.in_memory:
        await asyncio.sleep(0)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    async with asyncio.timeout(30):
        await use(cache, "b")


async def test_failed_load_reaches_all_who_wait_and_is_tried_again():
    cache = make(loader := FakeLoader())
    loader.broken.add("a")
    answers = await asyncio.gather(*(use(cache, "a") for _ in range(2)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [errors.ModelLoadFailed] * 2
    loader.broken.clear()
    await use(cache, "a")
    assert cache.snapshot().load_failures == 1


async def test_failed_load_answers_for_those_that_follow_for_a_while():
    cache = make(loader := FakeLoader(), retry_load_s=60)
    loader.broken.add("a")
    for _ in range(3):
        with pytest.raises(errors.ModelLoadFailed, match="truncated"):
            await use(cache, "a")
    assert loader.loads["a"] == 1


@pytest.mark.parametrize("sizes", ["sizes", "real"])
async def test_model_larger_than_everything_is_refused(sizes):
    cache = make(loader := FakeLoader())
    getattr(loader, sizes)["a"] = 3
    with pytest.raises(errors.ModelLoadFailed, match="3 bytes"):
        await use(cache, "a")
    assert loader.in_memory == {}
    await use(cache, "b")


async def test_too_many_calls_of_one_model_are_refused():
    cache = make(loader := FakeLoader(), max_calls_per_model=2)
    loader.gate.clear()
    held = [asyncio.create_task(use(cache, "a")) for _ in range(2)]
    await settled()
    with pytest.raises(errors.Overloaded):
        await use(cache, "a")
    loader.gate.set()
    await asyncio.gather(*held, use(cache, "b"))


@pytest.mark.parametrize("is_closed", [True, False])
async def test_calls_that_come_while_files_are_read_are_counted_too(is_closed):
    cache = make(loader := FakeLoader(), max_calls_per_model=1)
    loader.reading.clear()
    calls = [asyncio.create_task(use(cache, "a")) for _ in range(2)]
    await settled()
    if is_closed:
        await cache.close()
    loader.reading.set()
    async with asyncio.timeout(5):
        results = await asyncio.gather(*calls, return_exceptions=True)
    lost, full = errors.ReplicaLost, errors.Overloaded
    assert list(map(type, results)) == ([lost, lost] if is_closed else [type(None), full])


async def test_unused_model_leaves_by_itself():
    cache = make(loader := FakeLoader(), idle_s=0.01)
    await use(cache, "a")
    async with asyncio.timeout(5):
        while loader.in_memory:
            await asyncio.sleep(0.005)
    assert cache.items() == {}


async def test_retired_model_finishes_and_is_loaded_anew():
    cache = make(loader := FakeLoader())
    done = asyncio.Event()
    user = asyncio.create_task(use(cache, "a", done))
    await settled()
    cache.retire("a")
    await settled()
    again = asyncio.create_task(use(cache, "a"))
    await settled()
    assert loader.loads["a"] == 1
    done.set()
    await asyncio.gather(user, again)
    assert loader.loads["a"] == 2


async def test_load_s_counts_the_loads_ahead():
    cache = make(loader := FakeLoader(), budget=9)
    await use(cache, "a")
    cache._load_times.observe("b", 1, 4.0)
    cache._load_times.observe("c", 1, 5.0)
    loader.gate.clear()
    callers = [asyncio.create_task(use(cache, key)) for key in "bc"]
    await settled()
    assert await cache.load_s("a") == 0
    assert 3 < await cache.load_s("b") <= 4
    assert 8 < await cache.load_s("c") <= 9
    assert 8 < await cache.load_s("unknown") <= 15
    loader.gate.set()
    await asyncio.gather(*callers)


async def test_close_fails_who_waits_and_unloads():
    cache = make(loader := FakeLoader(), budget=1)
    done = asyncio.Event()
    users = [asyncio.create_task(use(cache, key, done)) for key in "ab"]
    await settled()
    await cache.close()
    assert loader.in_memory == {}
    with pytest.raises(errors.ReplicaLost):
        await users[1]
    with pytest.raises(errors.ReplicaLost):
        await use(cache, "c")
    done.set()
    await users[0]


Call = st.tuples(st.sampled_from("abcdef"), st.integers(0, 5), st.integers(0, 12))


@settings(max_examples=60)
@given(calls=st.lists(Call, max_size=24), budget=st.integers(3, 6), max_loads=st.integers(1, 2))
def test_any_crowd_is_served_within_the_budget(calls, budget, max_loads):
    """Calls use their model for some turns of the loop; some are cancelled after some turns."""
    asyncio.run(_crowd(calls, budget, max_loads))


async def _crowd(calls, budget, max_loads):
    loader = FakeLoader()
    loader.sizes = {"a": 1, "b": 1, "c": 2, "d": 2, "e": 3, "f": 3}
    cache = make(loader, budget=budget, max_loads=max_loads)

    async def call(key, turns):
        async with cache.use(key):
            for _ in range(turns):
                assert key in loader.in_memory, "evicted in use"
                await asyncio.sleep(0)

    async with asyncio.timeout(5):
        tasks = [asyncio.create_task(call(key, turns)) for key, turns, _ in calls]
        for task, (_, _, leaves_after) in zip(tasks, calls, strict=True):
            if leaves_after < 6:
                for _ in range(leaves_after):
                    await asyncio.sleep(0)
                task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        failures = [r for r in results if r and not isinstance(r, asyncio.CancelledError)]
        assert failures == []
        await cache.close()
    assert loader.most_bytes <= budget
    assert loader.in_memory == {}
