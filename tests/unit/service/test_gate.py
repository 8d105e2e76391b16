"""The gate over the in-memory store."""

import asyncio
from types import SimpleNamespace

import pytest

from serve_app import errors
from serve_app.service import gate as module
from serve_app.service.gate import Gate
from serve_app.testing.jobs import MemoryJobStore
from tests.builders import job_request


class CountingStore(MemoryJobStore):
    """Counts the questions."""

    num_asked = 0

    async def count_open(self):
        self.num_asked += 1
        await asyncio.sleep(0)
        return await super().count_open()


@pytest.fixture
def store():
    return CountingStore()


async def full_gate(store):
    """One place, taken by a job."""
    gate = Gate(store, max_open=1)
    await gate.admit("a")
    return gate, await store.add(job_request(), max_open=1)


async def test_gate_with_room_asks_nobody(store):
    gate = Gate(store, max_open=2)
    await gate.admit("a")
    await gate.check()
    assert store.num_asked == 0


async def test_full_gate_refuses_and_asks_once(store):
    gate, _job = await full_gate(store)
    for _ in range(100):
        with pytest.raises(errors.Overloaded):
            await gate.check()
    with pytest.raises(errors.Overloaded):
        await gate.admit("a")
    assert store.num_asked == 1


async def test_gate_opens_when_a_job_has_ended(store, monkeypatch):
    monkeypatch.setattr(module, "_LOOK_S", 0.0)
    gate, job = await full_gate(store)
    with pytest.raises(errors.Overloaded):
        await gate.check()
    await store.cancel(job.id)
    await gate.check()
    await gate.admit("a")


async def test_gate_that_the_store_contradicted_refuses(store):
    gate = Gate(store, max_open=1)
    await store.add(job_request(), max_open=1)  # by another process
    await gate.check()
    gate.close("a")
    with pytest.raises(errors.Overloaded):
        await gate.check()


async def test_gate_that_counted_ended_jobs_refuses_nobody(store):
    gate = Gate(store, max_open=2)
    for _ in range(2):
        await gate.admit("a")
    await asyncio.gather(*(gate.check() for _ in range(5)))
    assert store.num_asked == 1


async def test_gate_looks_again_for_who_wants_the_last_place(store):
    gate = Gate(store, max_open=2)
    await gate.admit("a")
    await asyncio.gather(gate.check(), gate.check())
    for _ in range(2):
        await gate.admit("a")
    assert store.num_asked == 1


async def test_caller_who_hangs_up_leaves_the_answer_to_the_others(store):
    gate, job = await full_gate(store)
    await store.cancel(job.id)
    asking = [asyncio.create_task(gate.check()) for _ in range(2)]
    await asyncio.sleep(0)
    asking[0].cancel()
    await asyncio.gather(asking[1])
    assert asking[0].cancelled()
    assert store.num_asked == 1


async def test_guests_pass_beyond_the_limit_and_refused_keys_do_not(store, monkeypatch):
    monkeypatch.setattr(module, "_LOOK_S", 60.0)
    gate = Gate(store, max_open=1, guests=1)
    await gate.admit("heavy")
    await store.add(job_request(), max_open=1)
    await gate.check()  # of nobody in particular: it may be a guest's
    await gate.check("heavy")
    gate.close("heavy")
    with pytest.raises(errors.Overloaded):
        await gate.check("heavy")
    await gate.admit("light")
    for key_id in ("other", None):
        with pytest.raises(errors.Overloaded):
            await gate.check(key_id)


async def test_key_that_was_refused_is_let_pass_when_jobs_have_ended(store, monkeypatch):
    monkeypatch.setattr(module, "_LOOK_S", 0.0)
    gate = Gate(store, max_open=1, guests=1)
    job = await store.add(job_request(), max_open=1)
    gate.close("heavy")
    await store.cancel(job.id)
    await gate.check("heavy")


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


async def test_full_gate_asks_again_after_a_fifth_of_a_second(store, clock):
    gate, job = await full_gate(store)
    for _ in range(2):
        with pytest.raises(errors.Overloaded):
            await gate.check()
    await store.cancel(job.id)
    clock[0] += 0.19
    with pytest.raises(errors.Overloaded):
        await gate.check()
    clock[0] += 0.02
    await gate.check()
    assert store.num_asked == 2


async def test_refused_keys_are_refused_for_a_fifth_of_a_second_each(store, clock):
    gate = Gate(store, max_open=1, guests=1)
    await store.add(job_request(), max_open=1)
    await gate.admit("heavy")
    await gate.check("heavy")  # which has asked the store
    gate.close("heavy")
    clock[0] += 0.1
    gate.close("other")
    for key_id in ("heavy", "other"):
        with pytest.raises(errors.Overloaded):
            await gate.check(key_id)
    clock[0] += 0.09
    with pytest.raises(errors.Overloaded):
        await gate.check("heavy")
    clock[0] += 0.02
    await gate.check("heavy")
    with pytest.raises(errors.Overloaded):
        await gate.check("other")


async def test_gate_that_a_refusal_closed_keeps_what_it_counted(store, clock):
    gate = Gate(store, max_open=1, guests=1)
    for key_id in ("a", "b"):
        await gate.admit(key_id)
        await store.add(job_request(), max_open=2)
    with pytest.raises(errors.Overloaded):
        await gate.check()
    gate.close("c")
    with pytest.raises(errors.Overloaded):  # both places, not only those up to the limit
        await gate.check("d")
    assert store.num_asked == 1


async def test_gate_whose_question_fails_asks_anew(store, clock, monkeypatch):
    gate, _job = await full_gate(store)

    async def fail():
        raise errors.JobStoreUnavailable("down")

    with monkeypatch.context() as patch:
        patch.setattr(store, "count_open", fail)
        with pytest.raises(errors.JobStoreUnavailable):
            await gate.check()
    clock[0] += 0.21
    with pytest.raises(errors.Overloaded):
        await gate.check()
    assert store.num_asked == 1
