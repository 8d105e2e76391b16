"""How long a job is waited for, on a clock that the driver's waits move."""

import asyncio

import pytest

from serve_app import errors
from serve_app.service.wait import JobWait
from serve_app.types import Job, JobState
from tests.builders import job_request


class Scene:
    """A driver, and a store that answers in turn; the last answer stays."""

    def __init__(self, *answers, is_driven=False):
        self.now, self.waits, self.reads, self.is_driven = 100.0, [], 0, is_driven
        self._answers = list(answers)

    def drives(self, job_id):
        return self.is_driven

    async def wait(self, job_id, timeout_s):
        self.waits.append(timeout_s)
        self.now += timeout_s

    async def get(self, job_id):
        self.reads += 1
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if answer is None:
            raise errors.JobStoreUnavailable("away")
        return Job(id=job_id, state=answer, request=job_request(), created_at=0)

    async def during(self, seconds, monkeypatch):
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: self.now)
        return (await JobWait(self, self.get).during(5, seconds)).state


OPEN, DONE = JobState.PROCESSING, JobState.SUCCESS


async def test_job_that_has_ended_is_waited_for_by_nobody(monkeypatch):
    scene = Scene(DONE)
    assert await scene.during(0.5, monkeypatch) is DONE
    assert (scene.waits, scene.reads) == ([], 1)


async def test_job_is_returned_as_it_is_when_the_time_is_over_and_not_before(monkeypatch):
    scene = Scene(OPEN)
    assert await scene.during(0.5, monkeypatch) is OPEN
    assert (scene.waits, scene.reads) == ([0.5], 2)


async def test_job_that_is_driven_here_is_not_read_before_it_has_ended(monkeypatch):
    scene = Scene(DONE, is_driven=True)
    assert await scene.during(0.5, monkeypatch) is DONE
    assert (scene.waits, scene.reads) == ([0.5], 1)


async def test_outage_is_told_at_the_end_of_the_time_alone(monkeypatch):
    assert await Scene(None, DONE).during(0.5, monkeypatch) is DONE
    with pytest.raises(errors.JobStoreUnavailable):
        await Scene(None).during(0.5, monkeypatch)
