"""What is remembered of jobs and callers, and what is forgotten."""

from types import SimpleNamespace

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


def test_what_is_older_than_a_quarter_of_an_hour_is_forgotten(monkeypatch):
    now = [500.0]
    monkeypatch.setattr(recent, "time", SimpleNamespace(monotonic=lambda: now[0]))
    kept = Recent()
    for number in (1, 2):
        assert kept.see(job(number)) == job(number)
        kept.see_key(f"secret {number}", f"key {number}")
    now[0] += 899.9
    assert (kept.job(1), kept.key_id("secret 1")) == (job(1), "key 1")
    kept.see(job(2))
    kept.see_key("secret 2", "key 2")
    now[0] += 0.1
    assert (kept.job(1), kept.key_id("secret 1")) == (None, None)
    assert (kept.job(2), kept.key_id("secret 2")) == (job(2), "key 2")


def test_any_text_may_be_a_secret():
    kept = Recent()
    kept.see_key("\ud800", "key")
    assert (kept.key_id("\ud800"), kept.key_id("?")) == ("key", None)
