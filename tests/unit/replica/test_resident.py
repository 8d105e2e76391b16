"""Weights are exchanged under work: nothing is lost, bad ones change nothing."""

import asyncio
import weakref

import pytest

from serve_app import errors
from serve_app.models.protocol import ReplicaPhase
from tests.residents import MODEL, colour, colour_of, report_of, until


async def test_start_serves_what_the_entry_names_and_says_so(make, store):
    resident = await make()
    assert await colour(resident) == (await colour_of("first"), 0)
    report = await report_of(store)
    assert (report.phase, report.weights_version, report.serving) == (ReplicaPhase.READY, 0, 0)
    assert (report.digest, report.load_s) == ("first", resident._slot.current.load_s)
    assert report.load_s > 0


async def test_reconcile_takes_up_the_wanted_revision(make, store, files):
    resident = await make()
    files.files["r2"] = "second"
    await store.advance(MODEL, "r2")
    await resident.reconcile()
    assert await colour(resident) == (await colour_of("second"), 1)
    report = await report_of(store)
    assert (report.phase, report.serving, report.revision) == (ReplicaPhase.READY, 1, "r2")
    assert resident.state().weights_version == 1


async def test_paint_at_work_keeps_the_weights_that_it_began_with(make, store, files):
    resident = await make()
    painting = asyncio.create_task(colour(resident, steps=100))
    await until(resident.progress)
    files.files[None] = "second"
    await store.advance(MODEL)
    await resident.reconcile()
    assert files.num_open == 2
    assert await colour(resident) == (await colour_of("second"), 1)
    assert not painting.done()
    assert (await painting)[1] == 0
    await until(lambda: files.num_open == 1)


async def test_new_paints_wait_for_nobody_while_weights_load(make, store, files):
    resident = await make()
    files.files[None] = "second"
    files.hold()
    await store.advance(MODEL)
    resident.notify()
    await until(files.began.is_set)
    assert (await colour(resident))[1] == 0
    assert (await report_of(store)).phase is ReplicaPhase.LOADING
    resident.check_health()


async def test_files_that_did_not_change_are_not_loaded_again(make, store, files):
    resident = await make()
    await store.advance(MODEL)
    await resident.reconcile()
    assert files.loads == ["first"]
    assert (await report_of(store)).serving == 1
    assert (await colour(resident))[1] == 1


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(OSError("truncated"), id="truncated"),
        pytest.param(ValueError("expected shape"), id="shapes"),
        pytest.param(errors.NonFiniteLatents(MODEL), id="nan"),
        pytest.param(MemoryError(), id="anything"),
    ],
)
async def test_bad_weights_leave_the_old_ones_serving(make, store, files, failure):
    resident = await make()
    files.files[None] = "bad"
    files.broken["bad"] = failure
    await store.advance(MODEL)
    await resident.reconcile()
    assert await colour(resident) == (await colour_of("first"), 0)
    report = await report_of(store)
    assert (report.phase, report.weights_version, report.serving) == (ReplicaPhase.FAILED, 1, 0)
    assert type(failure).__name__ in report.reason
    assert resident.state().reload_failures == 1
    resident.check_health()


class Half:
    """Weights of which a part was loaded."""


@pytest.mark.parametrize("is_cause", [True, False])
async def test_half_loaded_weights_are_gone_before_memory_is_tidied(make, store, files, is_cause):
    resident = await make()
    loaded, left = [], []

    def begin():
        half = Half()
        loaded.append(weakref.ref(half))
        raise OSError("truncated")

    def load(_digest):
        try:
            begin()
        except OSError as exc:
            if is_cause:
                raise ValueError("shape") from exc
            raise ValueError("shape")  # noqa: B904

    files.files[None] = "second"
    files.load = load
    files.tidy = lambda: left.append([one() for one in loaded])
    await store.advance(MODEL)
    await resident.reconcile()
    assert left == [[None]]


async def test_reason_of_a_failure_is_cut(make, store, files):
    resident = await make()
    files.files[None] = "bad"
    files.broken["bad"] = OSError("x" * 1000)
    await store.advance(MODEL)
    await resident.reconcile()
    assert len((await report_of(store)).reason) == 500


async def test_missing_revision_leaves_the_old_weights_serving(make, store):
    resident = await make()
    await store.advance(MODEL, "nowhere")
    await resident.reconcile()
    assert (await report_of(store)).phase is ReplicaPhase.FAILED
    assert (await colour(resident))[1] == 0


async def test_refused_weights_are_tried_again_only_when_newer_ones_are_wanted(make, store, files):
    resident = await make()
    files.files[None] = "bad"
    files.broken["bad"] = OSError()
    await store.advance(MODEL)
    for _ in range(3):
        await resident.reconcile()
    assert files.loads == ["first", "bad"]
    del files.broken["bad"]
    await store.advance(MODEL)
    await resident.reconcile()
    assert files.loads == ["first", "bad", "bad"]
    assert resident.state().weights_version == 2


async def test_reload_during_a_load_ends_at_the_newest(make, store, files):
    resident = await make()
    files.hold()
    files.files |= {None: "second", "r3": "third"}
    await store.advance(MODEL)
    first = asyncio.create_task(resident.reconcile())
    await until(files.began.is_set)
    await store.advance(MODEL, "r3")
    second = asyncio.create_task(resident.reconcile())
    files.go.set()
    await asyncio.gather(first, second)
    assert files.loads == ["first", "second", "third"]
    assert resident.state().weights_version == 2


async def test_many_callers_at_once_load_once(make, store, files):
    resident = await make()
    files.files[None] = "second"
    await store.advance(MODEL)
    await asyncio.gather(*(resident.reconcile() for _ in range(10)))
    assert files.loads == ["first", "second"]


async def test_cancelled_caller_does_not_stop_the_reload(make, store, files):
    resident = await make()
    files.files[None] = "second"
    files.hold()
    await store.advance(MODEL)
    caller = asyncio.create_task(resident.reconcile())
    await until(files.began.is_set)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    files.go.set()
    await resident.reconcile()
    assert files.loads == ["first", "second"]
    assert resident.state().weights_version == 1


async def test_run_follows_the_store_by_itself(make, store, files):
    resident = await make()
    files.files[None] = "second"
    await store.advance(MODEL)
    task = asyncio.create_task(resident.run())
    await until(lambda: resident.state().weights_version == 1)
    task.cancel()


async def test_silent_store_changes_nothing(make, store, monkeypatch):
    resident = await make()

    async def silent(_ids):
        raise errors.JobStoreUnavailable("down")

    monkeypatch.setattr(store, "desired", silent)
    await resident.reconcile()
    assert (await colour(resident))[1] == 0
    assert resident.state().reload_failures == 0


async def test_report_that_was_not_taken_is_sent_again(make, store, files, monkeypatch):
    resident = await make()

    async def silent(_report):
        raise errors.JobStoreUnavailable("down")

    await store.advance(MODEL)
    with monkeypatch.context() as outage:
        outage.setattr(store, "report", silent)
        await resident.reconcile()
    assert (await report_of(store)).serving == 0
    await resident.reconcile()
    assert (await report_of(store)).serving == 1


async def test_replica_that_starts_later_has_the_wanted_weights(make, store, files):
    await make("a")
    files.files["r2"] = "second"
    await store.advance(MODEL, "r2")
    later = await make("b")
    assert await colour(later) == (await colour_of("second"), 1)


async def test_replica_that_starts_on_bad_weights_falls_back_to_the_last_good(make, store, files):
    files.files |= {"r1": "good", "r2": "bad"}
    files.broken["bad"] = OSError("truncated")
    await store.advance(MODEL, "r1")
    resident = await make("a")
    await store.advance(MODEL, "r2")
    await resident.reconcile()
    later = await make("b")
    assert await colour(later) == (await colour_of("good"), 1)
    report = await report_of(store, "b")
    assert (report.phase, report.weights_version, report.serving) == (ReplicaPhase.FAILED, 2, 1)
    assert "truncated" in report.reason


async def test_replica_without_any_good_weights_does_not_start(make, store, files):
    await make("a")
    files.files[None] = "bad"  # in place of the good ones
    files.broken["bad"] = OSError("truncated")
    await store.advance(MODEL)
    with pytest.raises(errors.ReloadFailed, match="truncated"):
        await make("b")


async def test_snapshot_counts_what_all_generations_did(make, store, files):
    resident = await make()
    await colour(resident)
    files.files[None] = "second"
    await store.advance(MODEL)
    await resident.reconcile()
    await colour(resident)
    await until(lambda: files.num_open == 1)
    assert resident.snapshot().succeeded == 2


async def test_closed_resident_refuses_paints_and_is_ill(make):
    resident = await make()
    resident.close()
    with pytest.raises(errors.ReplicaLost):
        await colour(resident)
    with pytest.raises(RuntimeError):
        resident.check_health()


async def test_weights_that_come_after_the_end_are_closed(make, store, files):
    resident = await make()
    files.files[None] = "second"
    files.hold()
    await store.advance(MODEL)
    reloading = asyncio.create_task(resident.reconcile())
    await until(files.began.is_set)
    resident.close()
    files.go.set()
    await reloading
    await until(lambda: files.num_open == 0)


async def test_deploy_reloads_once_for_all_replicas(make, store, files):
    one, two = await make("a"), await make("b")
    files.files["r2"] = "second"
    for resident in (one, two):
        resident.request({"revision": "r2"})
    for resident in (one, two):
        await resident.reconcile()
        assert await colour(resident) == (await colour_of("second"), 1)


async def test_deploy_that_says_nothing_new_changes_nothing(make, store, files):
    """As when a replica starts, and Serve tells it the configuration of long ago."""
    resident = await make()
    resident.request({"note": 1})
    await resident.reconcile()
    await store.advance(MODEL)
    resident.request({"note": 1})
    await resident.reconcile()
    assert (await store.desired([MODEL]))[MODEL].weights_version == 2


@pytest.mark.parametrize("user_config", [{"revision": "../x"}, {"revision": 7}], ids=str)
async def test_deploy_with_a_bad_revision_is_refused_and_seen(make, store, user_config):
    resident = await make()
    resident.request(user_config)
    await resident.reconcile()
    assert await colour(resident) == (await colour_of("first"), 0)
    report = await report_of(store)
    assert (report.phase, report.serving) == (ReplicaPhase.FAILED, 0)
    assert "user_config" in report.reason
    assert resident.state().reload_failures == 1


async def test_deploy_with_a_revision_of_local_weights_is_refused_and_seen(make, store, files):
    resident = await make(has_revisions=False)
    files.files["r2"] = "second"
    resident.request({"revision": "r2"})
    await resident.reconcile()
    assert await colour(resident) == (await colour_of("first"), 0)
    assert "do not come from a hub" in (await report_of(store)).reason
    resident.request({"note": "the files have changed"})
    await resident.reconcile()
    assert (await colour(resident))[1] == 1


@pytest.mark.parametrize("user_config", [[1, 2], "now", 7, {"a": {"b": None}}], ids=str)
async def test_deploy_may_say_anything(make, store, user_config):
    resident = await make()
    resident.request(user_config)
    await resident.reconcile()
    assert (await colour(resident))[1] == 1


async def test_deploy_is_heard_when_the_store_is_back(make, store, monkeypatch):
    async def down(*_):
        raise errors.JobStoreUnavailable("down")

    resident = await make()
    monkeypatch.setattr(store, "advance", down)
    resident.request({"note": 1})
    await resident.reconcile()
    monkeypatch.undo()
    await resident.reconcile()
    assert (await colour(resident))[1] == 1
