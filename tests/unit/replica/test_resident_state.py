"""What a resident tells of its painters, and when it tries again."""

import asyncio
import threading
from types import SimpleNamespace

import pytest

from serve_app.models.protocol import ReplicaPhase
from serve_app.pipelines import FakePainter
from serve_app.replica import resident as module
from serve_app.types import Sight
from tests.builders import spec
from tests.residents import MODEL, colour, report_of, until


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


async def test_resident_that_does_well_has_no_failures(make):
    resident = await make()
    state = resident.state()
    assert (state.weights_version, state.reload_failures) == (0, 0)
    assert state.load_s == resident._slot.current.load_s
    resident.close()
    resident._slot._current = None
    assert (resident.state().weights_version, resident.state().load_s) == (-1, 0.0)


async def test_load_takes_what_its_clock_says(make, files, clock, store):
    load = files.load

    def slow(digest):
        clock[0] += 2.5
        return load(digest)

    files.load = slow
    resident = await make()
    assert resident.state().load_s == 2.5
    assert (await report_of(store)).load_s == 2.5


async def test_refused_weights_are_tried_again_when_their_time_is_over(make, store, files, clock):
    resident = await make(retry_s=60)
    files.files[None] = "bad"
    files.broken["bad"] = OSError()
    await store.advance(MODEL)
    await resident.reconcile()
    clock[0] += 59.9
    await resident.reconcile()
    assert files.loads == ["first", "bad"]
    del files.broken["bad"]
    clock[0] += 0.1
    await resident.reconcile()
    assert files.loads == ["first", "bad", "bad"]
    assert (await report_of(store)).phase is ReplicaPhase.READY
    await resident.reconcile()
    assert len(files.loads) == 3


async def test_rounds_are_as_far_apart_as_the_settings_say(make, store, monkeypatch):
    resident = await make()
    slept = []

    async def sleep(seconds):
        slept.append(seconds)
        if len(slept) > 50:
            await asyncio.Event().wait()

    with monkeypatch.context() as patch:
        patch.setattr(asyncio, "sleep", sleep)
        rounds = asyncio.create_task(resident.run())
        async with asyncio.timeout(5):
            while len(slept) <= 50:
                await asyncio.wait([rounds], timeout=0.005)
    rounds.cancel()
    assert 0.04 <= min(slept) < 0.05 < max(slept) <= 0.06


class Watched(FakePainter):
    """Shows what it is asked, and whom it paints."""

    def __init__(self, jobs=(), weight=3):
        super().__init__()
        self.jobs, self.weight, self.fetched, self.is_ill = jobs, weight, [], False

    def prefetch(self, asked):
        self.fetched.append(asked)

    def progress(self):
        return dict.fromkeys(self.jobs, 0.5)

    def look(self, watched):
        return {job: Sight(1, 2) for job in self.jobs if job in watched}

    def weight_bytes(self):
        return self.weight

    def check_health(self):
        if self.is_ill:
            raise RuntimeError("ill")


@pytest.fixture
async def pair(make, store, files):
    """A resident while one painter takes over from another, which has a paint left."""
    painters = [Watched(jobs=[1, 2], weight=3), Watched(jobs=[3], weight=4)]
    left = list(painters)
    files.load = lambda _digest: left.pop(0)
    resident = await make()
    async with resident._slot.use():
        files.files[None] = "second"
        await store.advance(MODEL)
        await resident.reconcile()
        yield resident, *painters


async def test_both_painters_are_told_of_while_one_takes_over(pair):
    resident, old, new = pair
    assert resident.weight_bytes() == 7
    assert resident.progress() == {1: 0.5, 2: 0.5, 3: 0.5}
    assert resident.look({1: None, 3: -1, 9: None}) == {1: Sight(1, 2), 3: Sight(1, 2)}
    resident.prefetch(spec())
    assert (old.fetched, new.fetched) == ([], [spec()])


@pytest.mark.parametrize("place", [1, 2])
async def test_resident_is_ill_when_either_painter_is(pair, place):
    pair[0].check_health()
    pair[place].is_ill = True
    with pytest.raises(RuntimeError, match="ill"):
        pair[0].check_health()


async def test_closed_resident_prefetches_nothing(make):
    resident = await make()
    await resident._slot.empty()
    resident.prefetch(spec())
    with pytest.raises(RuntimeError, match="no weights of tiny serve"):
        resident.check_health()


async def test_deploy_that_comes_while_another_is_recorded_is_recorded_too(
    make, store, monkeypatch
):
    resident, asked, go, advance = await make(), [], asyncio.Event(), store.advance

    async def slow(*given):
        asked.append(given)
        await go.wait()
        return await advance(*given)

    monkeypatch.setattr(store, "advance", slow)
    resident.request({"note": 1})
    await until(lambda: asked)
    resident.request({"note": 2})
    go.set()
    await until(lambda: len(asked) == 2)
    await resident.reconcile()
    assert (await store.desired([MODEL]))[MODEL].weights_version == 2
    assert (await colour(resident))[1] == 2
    await resident.reconcile()
    assert len(asked) == 2


async def test_memory_is_tidied_after_a_load_that_failed_and_after_the_old_painter(
    make, store, files
):
    tidied, done = [], threading.Event()
    files.tidy = lambda: (tidied.append(files.num_open), done.set())
    resident = await make()
    files.files[None] = "bad"
    files.broken["bad"] = OSError()
    await store.advance(MODEL)
    await resident.reconcile()
    assert tidied == [1]
    done.clear()
    files.files[None] = "second"
    await store.advance(MODEL)
    await resident.reconcile()
    await asyncio.to_thread(done.wait, 5)
    assert tidied == [1, 1]
    assert files.painters[0]._is_closed
