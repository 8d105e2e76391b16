"""Where two copies of the weights do not fit, replicas reload one after another."""

import asyncio

import pytest

from serve_app import errors
from serve_app.models.protocol import ReplicaPhase
from tests.residents import MODEL, Files, colour, colour_of, report_of, until

pytestmark = pytest.mark.parametrize("mode", ["alone", "beside"])


@pytest.fixture
def files():
    return Narrow()


class Narrow(Files):
    """Memory for one copy: a load beside another one runs out of it."""

    def load(self, digest):
        if self.num_open:
            self.loads.append("no room")
            raise errors.OutOfMemory("two copies do not fit")
        return super().load(digest)


async def test_weights_that_do_not_fit_twice_are_exchanged_alone(make, store, files, mode):
    resident = await make(mode=mode)
    files.files[None] = "second"
    await store.advance(MODEL)
    await resident.reconcile()
    assert await colour(resident) == (await colour_of("second"), 1)
    assert files.loads == ["first", *["no room"] * (mode == "beside"), "second"]
    assert await store.take_turn(MODEL, "other", 1)


async def test_paint_at_work_ends_before_its_weights_are_unloaded(make, store, files, mode):
    resident = await make(mode=mode)
    painting = asyncio.create_task(colour(resident, steps=50))
    await until(resident.progress)
    files.files[None] = "second"
    await store.advance(MODEL)
    reloading = asyncio.create_task(resident.reconcile())
    await until(lambda: resident.state().weights_version < 0)
    waiting = asyncio.create_task(colour(resident))
    resident.check_health()
    assert (await painting)[1] == 0
    await reloading
    assert (await waiting)[1] == 1


async def test_bad_files_are_told_before_anything_is_unloaded(make, store, files, mode):
    resident = await make(mode=mode)
    files.files[None] = "truncated"
    await store.advance(MODEL)
    await resident.reconcile()
    assert "truncated" not in files.loads
    assert files.num_open == 1
    assert (await report_of(store)).phase is ReplicaPhase.FAILED


async def test_old_weights_come_back_when_the_new_ones_fail(make, store, files, mode):
    resident = await make(mode=mode)
    files.files["r2"] = "bad"
    files.broken["bad"] = errors.OutOfMemory("larger than the old one")
    await store.advance(MODEL, "r2")
    await resident.reconcile()
    assert await colour(resident) == (await colour_of("first"), 0)
    report = await report_of(store)
    assert (report.phase, report.serving) == (ReplicaPhase.FAILED, 0)
    resident.check_health()


async def test_nothing_serves_when_the_old_files_are_gone_too(make, store, files, mode):
    resident = await make(mode=mode)
    files.files[None] = "bad"  # in place of the good ones
    files.broken["bad"] = errors.OutOfMemory("larger than the old one")
    await store.advance(MODEL)
    await resident.reconcile()
    assert (await report_of(store)).serving is None
    with pytest.raises(RuntimeError, match="no weights"):
        resident.check_health()


async def test_other_files_in_place_of_the_old_ones_are_not_restored(make, store, files, mode):
    """They can be loaded, and are not what served before."""
    resident = await make(mode=mode)
    files.files |= {None: "other", "r2": "bad"}
    files.broken["bad"] = errors.OutOfMemory("larger than the old one")
    await store.advance(MODEL, "r2")
    await resident.reconcile()
    assert "other" not in files.loads
    assert (await report_of(store)).serving is None


async def test_replicas_take_turns_and_one_always_serves(make, store, files, mode):
    other = Narrow()
    residents = [await make("a", mode=mode), await make("b", source=other, mode=mode)]
    for source in (files, other):
        source.files[None] = "second"
        source.hold()
    await store.advance(MODEL)
    reloading = [asyncio.create_task(one.reconcile()) for one in residents]
    await until(lambda: files.began.is_set() or other.began.is_set())
    assert sum(one.state().weights_version >= 0 for one in residents) == 1
    for source in (files, other):
        source.go.set()
    await asyncio.gather(*reloading)
    assert [one.state().weights_version for one in residents] == [1, 1]


async def test_weights_that_are_wanted_no_more_are_not_loaded_when_the_turn_comes(
    make, store, files, mode, monkeypatch
):
    resident = await make(mode=mode)
    asked, take = asyncio.Event(), store.take_turn

    async def take_turn(model_id, replica_id, lease_s):
        if replica_id != "other":
            asked.set()
        return await take(model_id, replica_id, lease_s)

    monkeypatch.setattr(store, "take_turn", take_turn)
    await store.take_turn(MODEL, "other", 100)
    files.files |= {None: "second", "r3": "third"}
    await store.advance(MODEL)
    reloading = asyncio.create_task(resident.reconcile())
    await asyncio.wait_for(asked.wait(), 10)
    await store.advance(MODEL, "r3")
    await store.end_turn(MODEL, "other")
    await reloading
    assert "second" not in files.loads
    assert resident.state().weights_version == 2
