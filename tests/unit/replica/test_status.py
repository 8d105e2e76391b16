"""What a replica reports, and when; how it waits for its turn."""

import asyncio
from types import SimpleNamespace

import pytest

from serve_app import errors
from serve_app.config import ReloadConfig
from serve_app.models.protocol import Desired, ReplicaPhase, ReplicaReport
from serve_app.pipelines.fake import FakePainter
from serve_app.replica import status as module
from serve_app.replica.slot import Served
from serve_app.replica.status import ReplicaStatus
from serve_app.replica.weights import Held
from serve_app.testing.models import MemoryModelStore

WANTED = Desired(model_id="m", weights_version=3, revision="r3")


class Store(MemoryModelStore):
    """Notes what it hears; each question fails that is in `down`."""

    def __init__(self):
        super().__init__()
        self.heard, self.turns, self.down = [], [], set()

    def _check(self, what):
        if what in self.down:
            raise errors.JobStoreUnavailable("down")

    async def report(self, report):
        self._check("report")
        self.heard.append(report)
        await super().report(report)

    async def take_turn(self, model_id, replica_id, lease_s):
        self._check("take_turn")
        self.turns.append((model_id, replica_id, lease_s))
        return await super().take_turn(model_id, replica_id, lease_s)

    async def end_turn(self, model_id, replica_id):
        self._check("end_turn")
        self.turns.append((model_id, replica_id, "end"))
        await super().end_turn(model_id, replica_id)


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def make(store):
    def make(replica_id="a", **settings):
        return ReplicaStatus("m", replica_id, store, ReloadConfig(**settings))

    return make


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def served(version=1, revision="r1", digest="first"):
    desired = Desired(model_id="m", weights_version=version, revision=revision)
    return Served(FakePainter(), desired, digest, load_s=2.5)


async def test_report_tells_what_is_wanted_and_what_serves(make, store):
    await make().say(WANTED, ReplicaPhase.FAILED, served(), "x" * 501)
    (report,) = store.heard
    assert report == ReplicaReport(
        model_id="m",
        replica_id="a",
        weights_version=3,
        phase=ReplicaPhase.FAILED,
        serving=1,
        revision="r1",
        digest="first",
        load_s=2.5,
        reason="x" * 500,
    )


async def test_report_of_nothing_that_serves_has_no_version(make, store):
    await make().say(WANTED, ReplicaPhase.LOADING, None)
    (report,) = store.heard
    assert (report.serving, report.revision, report.digest) == (None, None, "")
    assert (report.load_s, report.reason) == (0.0, "")


async def test_report_is_repeated_when_it_is_old_and_at_once_when_it_was_not_taken(
    make, store, clock
):
    status = make(report_s=30)
    await status.repeat()  # nothing was said yet
    assert store.heard == []
    await status.say(WANTED, ReplicaPhase.READY, served())
    clock[0] += 29.9
    await status.repeat()
    assert len(store.heard) == 1
    clock[0] += 0.1
    await status.repeat()
    await status.repeat()
    assert len(store.heard) == 2
    store.down.add("report")
    await status.say(WANTED, ReplicaPhase.READY, served(3))
    store.down.clear()
    await status.repeat()
    assert [report.serving for report in store.heard] == [1, 1, 3]


async def test_good_weights_are_those_that_served_newest_first(make, store):
    for replica_id, what in (
        ("a", served(1, "r1", "first")),
        ("b", served(3, "r3", "third")),
        ("c", served(2, "r2", "second")),
        ("d", served(2, "r2", "second")),
        ("e", None),
    ):
        await make(replica_id).say(WANTED, ReplicaPhase.READY, what)
    found = await make().good()
    assert found == [
        Held(Desired(model_id="m", weights_version=number, revision=f"r{number}"), digest)
        for number, digest in ((3, "third"), (2, "second"), (1, "first"))
    ]


async def test_weights_that_served_years_ago_are_good(make):
    now = [1e9]
    store = MemoryModelStore(clock=lambda: now[0])
    await ReplicaStatus("m", "a", store, ReloadConfig()).say(WANTED, ReplicaPhase.READY, served())
    now[0] += 20 * 365 * 86_400
    (found,) = await ReplicaStatus("m", "b", store, ReloadConfig()).good()
    assert found.digest == "first"


async def test_same_deploy_counts_once_in_whatever_order_it_says_things(make, store):
    for said in ({"a": 1, "revision": "r2"}, {"revision": "r2", "a": 1}, {"a": 2}):
        await make().request(said)
    assert await make().desired() == Desired(model_id="m", weights_version=2, revision="r2")
    with pytest.raises(errors.InvalidRequest):
        await make().request({"revision": "../x"})


async def test_turn_is_waited_for_and_given_back(make, store):
    first, second = make("a", turn_lease_s=60), make("b", turn_lease_s=60, poll_s=0.05)
    async with first.turn():
        waiting = asyncio.create_task(second.turn().__aenter__())
        async with asyncio.timeout(5):
            while ("m", "b", 60) not in store.turns:
                await asyncio.sleep(0.005)
        assert not waiting.done()
    async with asyncio.timeout(5):
        await waiting
    assert store.turns[0] == ("m", "a", 60)
    assert ("m", "a", "end") in store.turns


async def test_turn_is_renewed_three_times_within_its_lease_also_after_an_outage(
    make, store, monkeypatch
):
    slept, go = [], asyncio.Event()
    sleep = asyncio.sleep

    async def noted(seconds):
        slept.append(seconds)
        store.down = {"take_turn"} if len(slept) == 1 else set()
        if len(slept) == 4:
            go.set()
            await asyncio.Event().wait()
        await sleep(0)

    async with asyncio.timeout(5), make(turn_lease_s=60).turn():
        monkeypatch.setattr(asyncio, "sleep", noted)
        await go.wait()
    assert slept == [20.0] * 4
    assert store.turns == [("m", "a", 60)] * 3 + [("m", "a", "end")]


async def test_turn_that_cannot_be_given_back_runs_out(make, store):
    async with make().turn():
        store.down = {"end_turn"}
    store.down = {"take_turn"}
    with pytest.raises(errors.JobStoreUnavailable):
        async with make().turn():
            pytest.fail("nobody gave it the turn")
