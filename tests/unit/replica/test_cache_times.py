"""What the cache counts and expects, on a clock that a test moves."""

import asyncio
import gc
import weakref

import pytest

from serve_app import errors
from tests.unit.replica.test_cache import FakeLoader, make, settled, use


@pytest.fixture
async def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now[0])
    return now


async def loaded(cache, loader, clock, key, seconds):
    """Load a model within so many seconds."""
    loader.gate.clear()
    caller = asyncio.create_task(use(cache, key))
    await settled()
    clock[0] += seconds
    loader.gate.set()
    await settled()
    await caller


async def test_load_is_expected_to_take_what_is_left_of_its_time(clock):
    cache = make(loader := FakeLoader(), budget=9)
    loader.sizes = {"b": 2}
    await loaded(cache, loader, clock, "a", 4.0)
    loader.gate.clear()
    callers = [asyncio.create_task(use(cache, key)) for key in "bc"]
    await settled()
    assert [await cache.load_s(key) for key in "abcd"] == [0.0, 8.0, 12.0, 16.0]
    clock[0] += 3.0
    assert [await cache.load_s(key) for key in "bc"] == [5.0, 9.0]
    clock[0] += 7.0  # later than expected
    assert [await cache.load_s(key) for key in "bc"] == [0.0, 4.0]
    loader.gate.set()
    await settled()
    await asyncio.gather(*callers)
    assert cache.snapshot().load_seconds == 4.0 + 10.0


async def test_model_that_left_is_expected_to_take_what_it_took(clock):
    cache = make(loader := FakeLoader(), budget=1)
    loader.real["a"] = 1
    await loaded(cache, loader, clock, "a", 4.0)
    await loaded(cache, loader, clock, "b", 6.0)
    assert cache.snapshot().evictions == 1
    assert await cache.load_s("a") == 4.0


async def test_failure_answers_until_its_time_is_over(clock):
    cache = make(loader := FakeLoader(), retry_load_s=60)
    loader.broken.add("a")
    with pytest.raises(errors.ModelLoadFailed):
        await use(cache, "a")
    clock[0] += 59.9
    with pytest.raises(errors.ModelLoadFailed, match="OSError: truncated"):
        await use(cache, "a")
    assert loader.loads["a"] == 1
    loader.broken.clear()
    clock[0] += 0.1
    await use(cache, "a")
    await use(cache, "a")
    counted = cache.snapshot()
    assert (loader.loads["a"], counted.load_failures, counted.loads) == (2, 1, 1)
    assert (counted.waits, counted.hits) == (2, 1)


async def test_occupancy_counts_callers_and_the_share_of_the_budget(clock):
    cache = make(loader := FakeLoader(), budget=3)
    assert (cache.occupancy().used, cache.occupancy().calls) == (0.0, {})
    done = asyncio.Event()
    users = [asyncio.create_task(use(cache, "a", done)) for _ in range(2)]
    await settled()
    assert (cache.occupancy().used, cache.occupancy().calls) == (0.33, {"a": 2})
    loader.sizes["b"], loader.real["b"] = 1, 3  # larger than its files say
    users.append(asyncio.create_task(use(cache, "b", done)))
    await settled()
    found = cache.occupancy()
    assert (found.used, found.held, found.loading) == (1.0, ["a", "b"], [])
    assert found.calls == {"a": 2, "b": 1}
    assert cache.snapshot().used_bytes == 4
    done.set()
    await asyncio.gather(*users)


async def test_model_without_bytes_takes_one():
    cache = make(loader := FakeLoader())
    loader.sizes["a"] = 0
    await use(cache, "a")
    assert cache.snapshot().used_bytes == 1


async def test_model_whose_files_cannot_be_read_is_refused_and_asked_for_anew(monkeypatch):
    cache = make(loader := FakeLoader(), retry_load_s=60)

    async def fail(_key):
        raise OSError("no such file")

    with monkeypatch.context() as patch:
        patch.setattr(loader, "estimate_bytes", fail)
        for call in (use(cache, "a"), cache.load_s("a")):
            with pytest.raises(errors.ModelLoadFailed, match="OSError: no such file"):
                await call
    await use(cache, "a")
    assert cache.snapshot().load_failures == 0


async def test_model_that_cannot_be_stopped_makes_room_all_the_same(monkeypatch):
    cache = make(loader := FakeLoader(), budget=1)
    await use(cache, "a")

    async def fail(key, item):
        raise RuntimeError("stuck")

    monkeypatch.setattr(loader, "unload", fail)
    async with asyncio.timeout(5):
        await use(cache, "b")
        await cache.close()
    assert cache._items == {}


async def test_closed_cache_is_gone_before_its_timers_would_have_been_due():
    cache = make(FakeLoader(), idle_s=3600)
    for _ in range(3):
        await use(cache, "a")
    await cache.close()
    gone = weakref.ref(cache)
    del cache
    gc.collect()
    assert gone() is None


async def test_caller_cancelled_together_with_a_failure_holds_nothing(monkeypatch):
    cache = make(loader := FakeLoader(), budget=1)
    loader.broken.add("a")
    caller, failed = asyncio.create_task(use(cache, "a")), cache._ledger.failed

    def leave(key):
        caller.cancel()  # its future has the error, and it does not know yet
        failed(key)

    monkeypatch.setattr(cache._ledger, "failed", leave)
    with pytest.raises(asyncio.CancelledError):
        await caller
    async with asyncio.timeout(5):
        await use(cache, "b")
