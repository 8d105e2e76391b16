"""A reload as those see it who ask for one."""

import asyncio

import pytest
from pydantic import ValidationError

from serve_app import errors
from serve_app.config import ReloadConfig
from serve_app.models.protocol import Desired, ReplicaPhase, ReplicaReport
from serve_app.models.reload import Reloads
from serve_app.testing.models import MemoryModelStore

MODEL = "tiny"
READY, LOADING, FAILED = ReplicaPhase.READY, ReplicaPhase.LOADING, ReplicaPhase.FAILED


class Replicas:
    """Hear of each reload and answer with what `says` holds, by replica; None: there is nobody."""

    def __init__(self, store, says):
        self.store = store
        self.says = says
        self.num_notified = 0

    async def notify(self, model_id):
        await asyncio.sleep(0)  # as any call of a replica
        if self.says is None:
            raise errors.ModelNotRunning(model_id)
        wanted = (await self.store.desired([model_id]))[model_id]
        for replica, phase in self.says.items():
            if phase is not None:
                await self.say(replica, phase, wanted.weights_version)
        self.num_notified += 1
        return frozenset(self.says)

    async def hear(self, times=1):
        """Wait until they were notified so often."""
        while self.num_notified < times:
            await asyncio.sleep(0.001)

    async def say(self, replica, phase, weights_version):
        serving = weights_version if phase is READY else 0
        await self.store.report(
            ReplicaReport(
                model_id=MODEL,
                replica_id=replica,
                weights_version=weights_version,
                phase=phase,
                serving=serving,
                load_s=7.5,
            )
        )


@pytest.fixture
def make():
    def make(hold_s=0.0, min_interval_s=30, **says):
        store = MemoryModelStore()
        replicas = Replicas(store, says)
        config = ReloadConfig(hold_s=hold_s, min_interval_s=min_interval_s)
        return Reloads(store, replicas.notify, config), replicas

    return make


@pytest.mark.parametrize(
    ("says", "phase"),
    [
        pytest.param({"a": READY}, READY, id="one"),
        pytest.param({"a": READY, "b": READY}, READY, id="both"),
        pytest.param({"a": READY, "b": FAILED}, FAILED, id="one-refused"),
        pytest.param({"a": READY, "b": LOADING}, LOADING, id="one-loads"),
        pytest.param({"a": FAILED, "b": LOADING}, LOADING, id="refused-and-loads"),
        pytest.param({"a": READY, "b": None}, LOADING, id="one-silent"),
        pytest.param({}, LOADING, id="no-replica"),
    ],
)
async def test_reload_is_what_all_replicas_that_heard_of_it_say(make, says, phase):
    reloads, _ = make(**says)
    state = await reloads.request(MODEL)
    assert state.phase is phase
    assert state.wanted.weights_version == 1
    assert (state.eta_s > 0) == (phase is LOADING)


async def test_eta_is_what_the_last_load_took(make):
    assert (await make(a=LOADING)[0].request(MODEL)).eta_s == 7.5
    assert (await make()[0].request(MODEL)).eta_s == ReloadConfig().first_eta_s


async def test_hold_ends_when_the_last_replica_is_ready(make):
    reloads, replicas = make(hold_s=20, a=READY, b=LOADING)
    waiting = asyncio.create_task(reloads.request(MODEL))
    await replicas.hear()
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await replicas.say("b", READY, 1)
    assert (await waiting).phase is READY


async def test_two_reloads_at_once_wait_for_the_newest(make):
    reloads, replicas = make(hold_s=20, a=LOADING)
    both = asyncio.gather(reloads.request(MODEL), reloads.request(MODEL))
    await replicas.hear(2)
    await replicas.say("a", READY, 2)
    assert {state.wanted.weights_version for state in await both} == {1, 2}
    assert {state.phase for state in await both} == {READY}


async def test_busy_replicas_that_were_not_notified_are_waited_for_too(make):
    reloads, replicas = make(hold_s=20)
    await replicas.say("a", READY, 0)
    waiting = asyncio.create_task(reloads.request(MODEL))
    await replicas.hear()
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await replicas.say("a", READY, 1)
    assert (await waiting).phase is READY


async def test_refusal_of_an_older_version_does_not_count(make):
    reloads, replicas = make(a=None)
    await replicas.say("a", FAILED, 0)
    assert (await reloads.request(MODEL)).phase is LOADING


async def test_status_tells_of_the_replicas_that_were_heard_of(make):
    reloads, _ = make(a=READY, b=FAILED)
    await reloads.request(MODEL, "r2")
    state = await reloads.status(MODEL)
    assert (state.phase, state.wanted.revision) == (FAILED, "r2")
    assert [report.replica_id for report in state.replicas] == ["a", "b"]


async def test_request_joins_the_reload_that_is_at_work(make):
    reloads, replicas = make(a=LOADING)
    first = await asyncio.gather(*(reloads.request_limited(MODEL) for _ in range(5)))
    assert {(state.wanted.weights_version, state.phase) for state in first} == {(1, LOADING)}
    await replicas.say("a", READY, 1)
    assert (await reloads.request_limited(MODEL)).phase is READY  # who was told to come again


@pytest.mark.parametrize("phase", [READY, FAILED])
async def test_request_after_the_outcome_was_told_has_to_wait(make, phase):
    """Or whoever holds a key has bad weights tried without an end."""
    reloads, replicas = make(a=phase)
    assert (await reloads.request_limited(MODEL)).phase is phase
    with pytest.raises(errors.RateLimited) as refusal:
        await reloads.request_limited(MODEL)
    assert 0 < refusal.value.retry_after_s <= 30
    assert (await replicas.store.desired([MODEL]))[MODEL].weights_version == 1
    assert (await reloads.request(MODEL)).wanted.weights_version == 2  # the operator may


async def test_request_is_a_new_reload_when_the_interval_is_over(make):
    reloads, _ = make(a=READY, min_interval_s=0)
    states = [await reloads.request_limited(MODEL) for _ in range(3)]
    assert [state.wanted.weights_version for state in states] == [1, 2, 3]


async def test_request_that_did_not_reach_the_store_does_not_count(make, monkeypatch):
    async def down(*_):
        raise errors.JobStoreUnavailable("down")

    reloads, replicas = make(a=READY)
    monkeypatch.setattr(replicas.store, "advance", down)
    with pytest.raises(errors.JobStoreUnavailable):
        await reloads.request_limited(MODEL)
    monkeypatch.undo()
    assert (await reloads.request_limited(MODEL)).phase is READY


async def test_requests_for_a_model_that_does_not_run_want_one_version(make):
    """The first one after its application has come joins it."""
    reloads, replicas = make()
    replicas.says = None
    for _ in range(3):
        with pytest.raises(errors.ModelNotRunning):
            await reloads.request_limited(MODEL)
    replicas.says = {"a": READY}
    state = await reloads.request_limited(MODEL)
    assert (state.phase, state.wanted.weights_version) == (READY, 1)


@pytest.mark.parametrize("turns", range(4))
async def test_requests_of_clients_that_hang_up_want_one_version(make, turns):
    """However far the call has come by then."""
    reloads, replicas = make(hold_s=20, a=LOADING)
    for _ in range(3):
        call = asyncio.create_task(reloads.request_limited(MODEL))
        for _ in range(turns):
            await asyncio.sleep(0)
        call.cancel()
    await asyncio.sleep(0.01)
    assert (await replicas.store.desired([MODEL]))[MODEL].weights_version <= 1


def test_report_of_a_version_that_told_less_is_read():
    """As a replica of the version before reports, while a new one is deployed."""
    row = {"model_id": MODEL, "replica_id": "a", "generation": 2, "phase": "ready", "serving": 2}
    report = ReplicaReport.model_validate(row)
    told = (report.load_s, report.reported_at, report.digest, report.reason, report.revision)
    assert (report.weights_version, *told) == (2, 0.0, 0.0, "", "", None)


def test_weights_are_counted_from_0():
    assert Desired(model_id=MODEL).weights_version == 0
    with pytest.raises(ValidationError):
        Desired(model_id=MODEL, weights_version=-1)
