"""What a stream tells of a job, moment by moment, and the tokens that open one."""

import asyncio
import contextlib
from types import SimpleNamespace

import pytest

from serve_app import errors
from serve_app.config import EventsConfig
from serve_app.jobs.moment import (
    EndMoment,
    Mark,
    PreviewMoment,
    QueuedMoment,
    StartedMoment,
    StepMoment,
)
from serve_app.service import OPEN_KEY_ID, callers, tokens
from serve_app.types import JobState, Sight
from tests.builders import job_request
from tests.unit.service.test_generation import Bench

EVENTS = {"look_s": 0.05, "heartbeat_s": 0.2}


class Stage(Bench):
    """One job that others drive, and whoever watches it."""

    async def begin(self):
        self.job = await self.jobs.add(job_request(), max_open=9)
        await self.jobs.claim("elsewhere", 600, 1)
        self.looks = asyncio.create_task(self.service.audience.run())
        self.driver.start()
        return self

    def show(self, *sight):
        self.graph.sights[self.job.id] = Sight(*sight)

    async def end(self):
        await self.jobs.cancel(self.job.id)

    def follow(self, mark=None, has_previews=True):
        moments = self.service.follow(self.job, mark or Mark(), has_previews=has_previews)
        return contextlib.aclosing(moments)


async def told(moments):
    """The next moment, whatever heartbeats come before it."""
    while (moment := await anext(moments)) is None:
        pass
    return moment


@pytest.fixture
async def stage():
    stage = await Stage(events=EVENTS).begin()
    yield stage
    stage.looks.cancel()
    await stage.driver.close()


async def test_job_is_queued_started_stepped_shown_and_ended(stage):
    ahead = await stage.jobs.add(job_request(), max_open=9)
    other = await stage.jobs.add(job_request(), max_open=9)
    await stage.jobs.claim("elsewhere", 600, 9)
    stage.job = other
    async with stage.follow() as moments:
        assert await told(moments) == QueuedMoment(Mark(place=3), 3, pytest.approx(10, abs=20))
        await stage.jobs.cancel(ahead.id)
        assert (await told(moments)).place == 2
        stage.show(0, 0)
        assert await told(moments) == StartedMoment(Mark(run=1))
        stage.show(2, 10, b"jpeg", 1)
        assert await told(moments) == StepMoment(Mark(run=1, step=2), 2, 10)
        assert await told(moments) == PreviewMoment(Mark(1, 0, 2, 2), b"jpeg", 1, 10)
        await stage.jobs.cancel(other.id)
        end = await told(moments)
        assert isinstance(end, EndMoment)
        assert (end.mark, end.job.state) == (Mark(1, 0, 2, 2, True), JobState.CANCELLED)
        assert [moment async for moment in moments] == []


async def test_client_that_comes_back_hears_only_what_is_new(stage):
    stage.show(5, 10, b"jpeg", 4)
    async with stage.follow(Mark(1, 0, 5, 3)) as moments:
        assert await told(moments) == PreviewMoment(Mark(1, 0, 5, 5), b"jpeg", 4, 10)
        await stage.end()
        assert isinstance(await told(moments), EndMoment)


async def test_run_that_was_lost_begins_anew(stage):
    stage.show(5, 10)
    async with stage.follow(Mark(1, 0, 5, 0)) as moments:
        assert await anext(moments) is None
        stage.show(1, 10)
        assert await told(moments) == StartedMoment(Mark(run=2))
        assert await told(moments) == StepMoment(Mark(run=2, step=1), 1, 10)


async def test_job_that_had_ended_tells_its_end_only(stage):
    await stage.end()
    stage.job = await stage.jobs.get(stage.job.id)
    async with stage.follow(Mark(1, 0, 5, 3)) as moments:
        found = [moment async for moment in moments]
    assert found == [EndMoment(Mark(1, 0, 5, 3, True), stage.job)]


async def test_silence_of_a_job_at_work_is_broken_by_heartbeats(stage):
    stage.show(5, 10)
    async with stage.follow(Mark(1, 0, 5, 0)) as moments:
        assert [await anext(moments) for _ in range(3)] == [None] * 3


async def test_stream_that_is_closed_leaves_nothing_behind(stage):
    before = asyncio.all_tasks()
    async with stage.follow() as moments:
        for _ in range(3):
            await anext(moments)
        assert stage.service.audience._watched
    assert not stage.service.audience._watched
    assert not stage.service.audience._taken
    left = asyncio.all_tasks() - before
    if left:
        await asyncio.wait(left, timeout=5)  # what was cancelled ends in the next turns
    assert all(task.done() for task in left)


async def test_news_are_told_at_once_and_not_at_the_next_heartbeat():
    stage = await Stage(events={"look_s": 0.05, "heartbeat_s": 600}).begin()
    async with asyncio.timeout(10), stage.follow() as moments:
        assert isinstance(await anext(moments), QueuedMoment)
        stage.show(1, 10)
        assert isinstance(await anext(moments), StartedMoment)
        assert await anext(moments) == StepMoment(Mark(run=1, step=1), 1, 10)
        await stage.end()
        assert isinstance(await anext(moments), EndMoment)
    stage.looks.cancel()
    await stage.driver.close()


async def test_what_has_not_changed_is_told_once_and_then_heartbeats(stage):
    async with stage.follow() as moments:
        assert isinstance(await anext(moments), QueuedMoment)
        assert await anext(moments) is None
        stage.show(2, 10, b"jpeg", 1)
        found = [await told(moments) for _ in range(3)]
        assert [type(one) for one in found] == [StartedMoment, StepMoment, PreviewMoment]
        assert await anext(moments) is None
        stage.show(2, 10, b"jpeg", 2)  # the next one, while the step is counted late
        assert await told(moments) == PreviewMoment(Mark(1, 0, 2, 3), b"jpeg", 2, 10)


async def test_job_that_was_at_work_and_is_seen_no_more_has_no_place(stage):
    async with stage.follow(Mark(1, 0, 10, 0)) as moments:
        assert [await anext(moments) for _ in range(2)] == [None] * 2


async def test_outage_of_the_database_is_silence(stage, monkeypatch):
    async def fail(model_id):
        raise errors.JobStoreUnavailable("down")

    with monkeypatch.context() as patch:
        patch.setattr(stage.jobs, "waiting", fail)
        moments = stage.service.follow(stage.job, Mark(), has_previews=True)
        assert await anext(moments) is None
    assert await told(moments) == QueuedMoment(Mark(place=1), 1, pytest.approx(10, abs=20))
    await moments.aclose()


async def test_stream_that_is_too_old_ends_without_an_end(stage):
    stage.service._follower._config = EventsConfig(**EVENTS, max_stream_s=0.2)
    async with asyncio.timeout(10), stage.follow() as moments:
        found = [moment async for moment in moments]
    assert isinstance(found[0], QueuedMoment)
    assert not any(isinstance(moment, EndMoment) for moment in found)


async def test_nobody_who_wants_previews_gets_none(stage):
    stage.show(5, 10, b"jpeg", 4)
    async with stage.follow(Mark(1, 0, 4, 0), has_previews=False) as moments:
        assert isinstance(await told(moments), StepMoment)
        await stage.end()
        assert isinstance(await told(moments), EndMoment)


SECRET = bytes(32)


def test_token_opens_the_stream_of_its_job_until_it_ends():
    token = tokens.issue(SECRET, 7, "key_a", 1000)
    assert tokens.read(SECRET, 7, token, 1000.0) == "key_a"


@pytest.mark.parametrize(
    ("secret", "job_id", "change", "now"),
    [
        pytest.param(SECRET, 8, lambda t: t, 1000.0, id="another job"),
        pytest.param(bytes([1]) * 32, 7, lambda t: t, 1000.0, id="another secret"),
        pytest.param(SECRET, 7, lambda t: t, 1001.0, id="old"),
        pytest.param(SECRET, 7, lambda t: t.replace("1000", "9000"), 1000.0, id="prolonged"),
        pytest.param(SECRET, 7, lambda t: t.replace("key_a", "key_b"), 1000.0, id="another key"),
        pytest.param(SECRET, 7, lambda t: t[:-1], 1000.0, id="cut off"),
        pytest.param(SECRET, 7, lambda t: "", 1000.0, id="empty"),
    ],
)
def test_token_that_was_not_made_so_is_refused(secret, job_id, change, now):
    with pytest.raises(errors.InvalidKey):
        tokens.read(secret, job_id, change(tokens.issue(SECRET, 7, "key_a", 1000)), now)


async def test_token_ends_when_the_settings_say(stage, monkeypatch):
    now = [1_000_000.7]
    monkeypatch.setattr(callers, "time", SimpleNamespace(time=lambda: now[0]))
    key, _ = await stage.keys.create("a")
    token = await stage.service.issue_token(7, key.id)
    now[0] += stage.config.events.token_ttl_s - 1
    assert await stage.service.read_token(7, token) == key.id
    now[0] += 1
    with pytest.raises(errors.InvalidKey):
        await stage.service.read_token(7, token)


async def test_token_of_an_open_service_is_live_without_a_key():
    service = Bench(sections={"auth": {"mode": "open"}}).service
    assert await service.identify(None) == OPEN_KEY_ID
    assert await service.read_token(7, await service.issue_token(7, OPEN_KEY_ID)) == OPEN_KEY_ID
    assert await service.is_live("another") is False


async def test_token_of_a_revoked_key_is_refused(stage):
    key, _ = await stage.keys.create("a")
    token = await stage.service.issue_token(7, key.id)
    assert await stage.service.read_token(7, token) == key.id
    await stage.keys.revoke(key.id)
    with pytest.raises(errors.InvalidKey):
        await stage.service.read_token(7, token)
