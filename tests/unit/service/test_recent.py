"""What is remembered of jobs and callers, and what is forgotten."""

import pytest

from serve_app.service import recent
from serve_app.service.recent import Recent
from serve_app.types import Job, JobState
from tests.builders import job_request


def job(number):
    return Job(id=number, state=JobState.PROCESSING, request=job_request(), created_at=0)


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(recent, "_MAX_JOBS", 2)
    monkeypatch.setattr(recent, "_MAX_KEYS", 2)
    return Recent()


def test_latest_jobs_and_callers_are_kept(few):
    for number in (1, 2, 1, 3):
        few.see(job(number))
        few.see_key(f"secret {number}", f"key {number}")
    assert [getattr(few.job(number), "id", None) for number in (1, 2, 3)] == [1, None, 3]
    known = [few.key_id(f"secret {number}") for number in (1, 2, 3)]
    assert known == ["key 1", None, "key 3"]


def test_what_is_old_is_forgotten(few, monkeypatch):
    few.see(job(1))
    monkeypatch.setattr(recent, "_KEPT_S", 0.0)
    assert few.job(1) is None
