"""Faults, load and lost clients at the HTTP level: what is said, and what is not."""

import asyncio
import json

import pytest
from structlog.testing import capture_logs

from serve_app import errors
from serve_app.api.middleware import Fallback
from serve_app.api.replies import wire
from serve_app.config import HttpConfig
from serve_app.telemetry import tally
from tests.spans import spans

__all__ = ["spans"]

TEXT2IMG = "/api/v4/dreambooth"
V6 = "/api/v6/images/text2img"
SECRET = "sk_live_canary"


def holds(reply, documented):
    return {name: reply.get(name) for name in documented} == documented


async def test_rate_limit_is_the_documented_error(api, text_body, load_golden):
    api.service.refusal = errors.RateLimited(30)
    answer = await api.post(TEXT2IMG, text_body)
    assert holds(answer.json(), load_golden("error_rate"))
    assert (answer.status_code, "retry-after" in answer.headers) == (200, False)
    answer = await api.post(V6, text_body)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "30")
    assert answer.json()["retry_after"] == 30


class Remote(Exception):
    """As Ray's error of a task: what happened there is its `cause`."""

    def __init__(self, cause):
        super().__init__()
        self.cause = cause


OURS = errors.ModelNotFound("m")


def caused(outer, inner):
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    "error",
    [
        OURS,
        Remote(OURS),
        caused(ValueError(), OURS),
        caused(Remote(None), OURS),
        ExceptionGroup("", [OURS, ValueError()]),
        ExceptionGroup("", [Remote(caused(ValueError(), Remote(OURS)))]),
    ],
    ids=["itself", "remote", "cause", "neither", "group", "all"],
)
def test_our_error_is_found_in_what_other_layers_made_of_it(error):
    assert wire.find(error) is OURS


def test_error_that_is_none_of_ours_is_not_found():
    ring = Remote(None)
    ring.cause = ring
    for error in (ValueError(), Remote(ValueError()), ring, ExceptionGroup("", [ValueError()])):
        assert wire.find(error) is None


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (TEXT2IMG, "Rate limit exceeded"),
        (V6, "Rate limit exceeded. Maximum 5 queued requests allowed."),
    ],
    ids=["V4", "V6"],
)
async def test_key_with_too_many_open_jobs_is_told_so(api, text_body, path, message):
    api.service.refusal = errors.TooManyOpen(5, 40, 7.2)
    reply = (await api.post(path, text_body)).json()
    assert (reply["message"], reply["retry_after"]) == (message, 8)
    assert (reply["status"], reply["reason"]) == ("error", "rate_limited")
    assert reply["tips"] == (
        "your key has 5 requests queued or processing, which is the most it may have, "
        "please wait for 8 seconds and try again, or cancel one of them"
    )


@pytest.mark.parametrize("error", [errors.Overloaded(2.5), errors.JobStoreUnavailable("db down")])
async def test_refusal_for_load_has_a_code_and_a_time(api, text_body, error):
    api.service.refusal = error
    answer = await api.post(V6, text_body)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert "db down" not in answer.text


@pytest.mark.parametrize("path", [TEXT2IMG, V6])
async def test_unexpected_error_says_nothing(api, text_body, path):
    api.service.refusal = ValueError(f"/srv/app {SECRET}")
    with capture_logs() as lines:
        answer = await api.post(path, text_body | {"key": SECRET})
    assert answer.status_code == (200 if path == TEXT2IMG else 500)
    assert answer.json()["message"] == "Internal server error. Please try again."
    assert "/srv/app" not in answer.text
    assert lines[0]["error"] == "ValueError"
    assert "testing/service.py" in lines[0]["frames"]
    assert SECRET not in json.dumps(lines)


async def test_error_that_a_task_group_wrapped_is_found(api, text_body):
    api.service.refusal = ExceptionGroup("tasks", [errors.Overloaded(3)])
    assert (await api.post(V6, text_body)).headers["retry-after"] == "3"


async def test_error_that_ray_wrapped_is_found_by_its_cause(api, text_body):
    wrapped = RuntimeError("TaskError: a long stack")
    wrapped.cause = errors.Overloaded(3)
    api.service.refusal = wrapped
    assert (await api.post(V6, text_body)).headers["retry-after"] == "3"


async def test_error_of_a_mixed_class_is_read_by_its_attributes(api, text_body):
    class RayTaskError(RuntimeError):
        pass

    class Mixed(RayTaskError, errors.RateLimited):
        def __init__(self):
            self.retry_after_s = 9

    api.service.refusal = Mixed()
    answer = await api.post(V6, text_body)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "9")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/api/v4/dreambooth/nope", 404),
        ("POST", "/api/v9/x", 404),
        ("GET", "/api/v4/dreambooth/inpaint", 405),
        ("PUT", "/api/v6/images/fetch/1", 405),
        ("GET", "/nope", 404),
    ],
)
async def test_unknown_call_has_the_apis_shape_and_a_real_code(api, method, path, status):
    answer = await api.http.request(method, path)
    assert answer.status_code == status
    assert answer.json()["status"] == "error"
    assert "detail" not in answer.json()


@pytest.mark.parametrize(
    ("fields", "state"), [({}, "cancelled"), ({"webhook": "https://a.example/h"}, "queued")]
)
async def test_client_that_leaves_cancels_its_job_unless_it_has_a_webhook(
    api, text_body, fields, state
):
    api.service.never_answers = True
    call = asyncio.create_task(api.post(TEXT2IMG, text_body | fields))
    await api.service.held.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert [job.state.value for job in api.service.jobs.values()] == [state]


@pytest.mark.parametrize(("after_s", "told"), [(2.01, "3"), (2.5, "3"), (3.0, "3"), (0.0, "1")])
async def test_retry_after_is_never_too_early(api, text_body, after_s, told):
    api.service.refusal = errors.Overloaded(after_s)
    assert (await api.post(V6, text_body)).headers["retry-after"] == told


async def test_failure_in_the_middle_of_an_answer_begins_no_second_one():
    async def app(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise errors.Overloaded(3)

    sent = []

    async def send(message):
        sent.append(message["type"])

    scope = {"type": "http", "path": V6, "method": "POST", "headers": []}
    with pytest.raises(errors.Overloaded):
        await Fallback(app, HttpConfig())(scope, None, send)
    assert sent == ["http.response.start", "http.response.body"]


@pytest.fixture
def counted(monkeypatch):
    fresh = tally.Tally()
    monkeypatch.setattr(tally, "ERRORS", fresh)
    return lambda: {series: number for series, number in fresh.errors.items() if number}


async def test_refusals_are_counted_by_code_call_and_key(api, text_body, counted):
    """Those too that V3 and V4 answer with HTTP 200; never by the key itself."""
    api.service.keys = {SECRET: "key_1"}
    await api.post(TEXT2IMG, text_body | {"key": "nobody's"})
    await api.post(TEXT2IMG, text_body | {"key": SECRET, "model_id": "nope"})
    api.service.refusal = errors.Overloaded()
    for path in (V6, V6, TEXT2IMG):
        await api.post(path, text_body | {"key": SECRET})
    await api.post("/api/v6/nothing/here", text_body)
    await api.post(V6, text_body, headers={"x-long": "x" * 100_000})
    assert counted() == {
        ("invalid_key", TEXT2IMG, tally.NOBODY): 1,
        ("model_not_found", TEXT2IMG, "key_1"): 1,
        ("overloaded", V6, tally.NOBODY): 2,
        ("overloaded", TEXT2IMG, tally.NOBODY): 1,
        (tally.NO_CALL, tally.NO_PATH, tally.NOBODY): 1,
        ("headers_too_large", tally.NO_PATH, tally.NOBODY): 1,
    }


async def test_call_that_succeeds_counts_nothing(api, text_body, counted):
    await api.post(TEXT2IMG, text_body)
    assert counted() == {}


@pytest.mark.parametrize(
    ("refusal", "told"),
    [(None, None), (errors.RateLimited(30), None), (errors.Overloaded(), "503")],
)
async def test_span_of_a_call_tells_an_error_of_the_server_alone(
    api, text_body, spans, refusal, told
):
    api.service.refusal = refusal
    await api.post(V6, text_body)
    (span,) = [one for one in spans.all() if "http.response.status_code" in one.attributes]
    assert span.attributes.get("error.type") == told
