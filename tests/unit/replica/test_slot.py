"""A slot that another thread closes while painters and paints come."""

import asyncio
import dataclasses
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from serve_app import errors
from serve_app.models.protocol import Desired
from serve_app.pipelines.fake import FakePainter
from serve_app.replica.slot import Served, Slot, run_and_forget

ROUNDS = 300


@pytest.fixture(autouse=True)
def switching_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Closed(FakePainter):
    """Says when it is closed."""

    def __init__(self):
        super().__init__()
        self.closed = threading.Event()

    def close(self):
        self.closed.set()


async def test_painter_that_comes_while_the_slot_closes_is_closed_too():
    for _ in range(ROUNDS):
        slot, painter = Slot(), Closed()
        closing = threading.Thread(target=slot.close)
        closing.start()
        slot.put(Served(painter, Desired(model_id="m"), "", 0.0))
        await asyncio.to_thread(closing.join)
        assert await asyncio.to_thread(painter.closed.wait, 10)


async def use(slot):
    async with slot.use():
        raise AssertionError("nothing is there to be used")


async def test_slot_that_closes_between_a_look_and_the_wait_wakes_the_paint(monkeypatch):
    slot, loop = Slot(), asyncio.get_running_loop()
    closing = threading.Thread(target=slot.close)

    def close_first():
        if not closing.ident:
            closing.start()
            closing.join(0.1)  # it has to wait for the paint to be among those that wait
        return loop

    monkeypatch.setattr("serve_app.replica.slot.asyncio.get_running_loop", close_first)
    with pytest.raises(errors.ReplicaLost):
        await asyncio.wait_for(use(slot), 10)
    closing.join()


async def test_closed_painter_is_gone_although_the_thread_remembers_its_call():
    painter = Closed()
    seen, was_closed, box = weakref.ref(painter), painter.closed, [painter.close]
    del painter
    with ThreadPoolExecutor(1) as threads:
        await asyncio.get_running_loop().run_in_executor(threads, run_and_forget, box)
    assert was_closed.is_set()
    assert seen() is None  # `box` is what the thread was given, held here on purpose


async def test_slot_is_empty_when_memory_is_tidied_whoever_wakes_who_waits():
    tidied = []

    def tidy():
        slot.close()  # of another thread: it wakes all who wait
        time.sleep(0.05)
        tidied.append(painter.closed.is_set())

    slot, painter = Slot(tidy), Closed()
    slot.put(Served(painter, Desired(model_id="m"), "", 0.0))
    await slot.empty()
    assert tidied == [True]


def test_slot_without_a_painter_has_done_nothing():
    found = dataclasses.asdict(Slot().snapshot())
    assert {name for name, value in found.items() if value} == set()


async def test_replaced_painter_is_closed_when_its_last_paint_ends():
    """Not when the first of two does, which would fail the other."""
    slot, painter = Slot(), Closed()
    slot.put(Served(painter, Desired(model_id="m"), "", 0.0))
    first, second = slot.use(), slot.use()
    for paint in (first, second):
        await paint.__aenter__()
    slot.put(Served(Closed(), Desired(model_id="m", weights_version=1), "", 0.0))
    await first.__aexit__(None, None, None)
    await slot._closing.wait()
    assert not painter.closed.is_set()
    await second.__aexit__(None, None, None)
    assert await asyncio.to_thread(painter.closed.wait, 10)
    await asyncio.to_thread(slot.close)


def served(painter, version=0):
    return Served(painter, Desired(model_id="m", weights_version=version), "", 0.0)


async def test_painter_that_nobody_uses_is_closed_when_another_comes():
    slot, first, second = Slot(), Closed(), Closed()
    slot.put(one := served(first))
    assert (slot.current, slot.held(), slot.is_closed) == (one, [one], False)
    async with slot.use() as used:
        assert used is one
    slot.put(other := served(second, 1))
    await slot._closing.wait()
    assert first.closed.is_set()
    assert (slot.current, slot.held()) == (other, [other])
    assert not second.closed.is_set()


async def test_emptied_slot_waits_for_the_last_paint_and_makes_new_ones_wait():
    slot, first, second = Slot(), Closed(), Closed()
    slot.put(served(first))
    async with slot.use():
        emptying = asyncio.create_task(slot.empty())
        await asyncio.sleep(0)
        assert slot.current is None
        assert len(slot.held()) == 1
        waiting = asyncio.create_task(slot.use().__aenter__())
        await asyncio.sleep(0.01)
        assert not first.closed.is_set()
    await asyncio.wait_for(emptying, 10)
    assert first.closed.is_set()
    assert not waiting.done()
    slot.put(new := served(second, 1))
    assert await asyncio.wait_for(waiting, 10) is new


async def test_slot_that_is_empty_can_be_emptied():
    slot = Slot()
    await asyncio.wait_for(slot.empty(), 10)
    assert (slot.current, slot.held()) == (None, [])


async def test_closed_slot_closes_painters_at_work_and_says_so():
    slot, old, new = Slot(), Closed(), Closed()
    slot.put(served(old))
    async with slot.use():
        slot.put(served(new, 1))
        slot.close()
        assert slot.is_closed
        assert old.closed.is_set()
        assert new.closed.is_set()


async def test_work_of_painters_that_left_is_counted_once():
    slot = Slot()
    for version in range(3):
        painter = Closed()
        painter._counters.succeed(time.monotonic(), 2)
        slot.put(served(painter, version))
        assert slot.snapshot().succeeded == 2 * (version + 1)  # while the old one leaves
        await slot._closing.wait()
        assert slot.snapshot().succeeded == 2 * (version + 1)


async def test_painter_whose_end_fails_is_gone_all_the_same():
    tidied, painter = [], Closed()
    slot = Slot(lambda: tidied.append(True))

    def fail():
        raise RuntimeError("stuck")

    painter.close = fail
    slot.put(served(painter))
    slot.put(served(Closed(), 1))
    async with asyncio.timeout(10):
        while len(slot.held()) > 1 or not tidied:
            await asyncio.sleep(0.005)
    assert tidied == [True]
