"""Who ends the job of a stream: its own client, and nobody who only repeats its call."""

import asyncio
import json

import pytest

from serve_app import errors
from serve_app.api.replies.stream import EventStream
from serve_app.types import JobState

PATH = "/v1/images/generations"
BODY = {"model": "your_model_id", "prompt": "a cat", "stream": True}
NAMED = {"Idempotency-Key": "order-7"}
START, PIECE = "http.response.start", "http.response.body"


async def refuse(*_args, **_kwargs):
    """Stand for `follow` where all places of streams are taken."""
    raise errors.Overloaded()
    yield


async def hang(*_args, **_kwargs):
    """Stand for `follow` where the store takes its time."""
    await asyncio.Event().wait()
    yield


def states(service):
    return [job.state for job in service.jobs.values()]


async def test_refused_repeat_leaves_the_job_of_the_first_call_alone(api, service):
    service.outcome, service.moments = None, [None]
    assert (await api.post(PATH, BODY, headers=NAMED)).status_code == 200
    service.refusal = errors.Overloaded()
    answer = await api.post(PATH, BODY, headers=NAMED)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "overloaded")
    assert states(service) == [JobState.QUEUED]


@pytest.mark.parametrize(
    ("extra", "state"),
    [
        pytest.param({}, JobState.CANCELLED, id="alone"),
        pytest.param({"webhook": "http://a.example/b"}, JobState.QUEUED, id="webhook"),
    ],
)
async def test_refused_stream_ends_its_job_unless_a_webhook_tells_of_it(
    api, service, monkeypatch, extra, state
):
    monkeypatch.setattr(service, "follow", refuse)
    assert (await api.post(PATH, BODY | extra)).status_code == 503
    assert states(service) == [state]


async def call_and_leave(app, where, headers=()):
    """Make a call whose client reads nothing from `where` on, and leaves."""
    data, reached = json.dumps(BODY).encode(), asyncio.Event()
    head = {"content-type": "application/json", "content-length": str(len(data))} | dict(headers)
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
        "scheme": "http", "path": PATH, "raw_path": PATH.encode(), "query_string": b"",
        "root_path": "", "client": ("a", 1), "server": ("a.b", 80),
        "headers": [(name.lower().encode(), value.encode()) for name, value in head.items()],
    }  # fmt: skip
    incoming = [{"type": "http.request", "body": data, "more_body": False}]

    async def receive():
        return incoming.pop() if incoming else await asyncio.Event().wait()

    async def send(message):
        if message["type"] == where:
            reached.set()
            await asyncio.Event().wait()

    call = asyncio.create_task(app(scope, receive, send))
    if where is None:
        await asyncio.sleep(0.05)
    else:
        await asyncio.wait_for(reached.wait(), 5)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)


@pytest.mark.parametrize("where", [START, PIECE])
@pytest.mark.parametrize(
    ("headers", "state"), [({}, JobState.CANCELLED), (NAMED, JobState.QUEUED)], ids=["own", "named"]
)
async def test_client_that_leaves_a_stream_ends_its_own_job(shared, service, where, headers, state):
    service.outcome, service.moments = None, [None]
    await call_and_leave(shared[1], where, headers)
    assert states(service) == [state]


async def test_client_that_leaves_before_there_is_a_stream_ends_its_job(
    shared, service, monkeypatch
):
    monkeypatch.setattr(service, "follow", hang)
    await call_and_leave(shared[1], None)
    assert states(service) == [JobState.CANCELLED]


async def test_stream_whose_head_is_not_read_is_closed():
    is_closed, reached = asyncio.Event(), asyncio.Event()

    async def pieces():
        try:
            while True:
                yield b"data"
        finally:
            is_closed.set()

    async def send(_message):
        reached.set()
        await asyncio.Event().wait()

    work = asyncio.create_task(EventStream(pieces(), 5)({}, asyncio.Event().wait, send))
    await asyncio.wait_for(reached.wait(), 5)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    assert is_closed.is_set()
