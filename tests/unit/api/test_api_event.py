"""Streams of events on the wire: their form, who may open one, and a client that reads nothing."""

import asyncio
import json

import pytest

from serve_app import errors
from serve_app.api import create_api
from serve_app.api.replies.stream import EventStream
from serve_app.config import EventsConfig, HttpConfig, JobsConfig
from serve_app.jobs.moment import Mark, PreviewMoment, QueuedMoment, StartedMoment, StepMoment
from serve_app.types import JobFailure
from tests.unit.api.conftest import Api

PATH = "/api/v4/dreambooth/events"


def read(text):
    """Read events as a browser does: (id, event, data), comments and `retry` left out."""
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if line[:1] != ":")
        if "data" in lines:
            found.append((lines.get("id"), lines["event"], json.loads(lines["data"])))
    return found


@pytest.fixture
async def job_id(api, service, text_body):
    reply = await api.reply("/api/v4/dreambooth", text_body | {"instant_response": "yes"})
    return reply["id"]


async def test_stream_tells_all_moments_and_ends_with_what_fetch_says(api, service, job_id):
    first, run = Mark(place=3), Mark(run=1)
    service.moments = [
        QueuedMoment(first, 3, 70.2),
        StartedMoment(run),
        StepMoment(Mark(1, 0, 4), 4, 20),
        None,
        PreviewMoment(Mark(1, 0, 4, 5), b"jpeg", 4, 20),
    ]
    answer = await api.http.get(f"{PATH}/{job_id}")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert ": heartbeat\n\n" in answer.text
    fetched = await api.reply(f"/api/v4/dreambooth/fetch/{job_id}", {})
    assert fetched["status"] == "success"
    assert read(answer.text) == [
        ("0.3.0.0.0", "queued", {"place": 3, "eta": 5}),
        ("1.0.0.0.0", "started", {}),
        ("1.0.4.0.0", "progress", {"step": 4, "steps": 20}),
        (
            "1.0.4.5.0",
            "preview",
            {"image": "data:image/jpeg;base64,anBlZw==", "step": 4, "steps": 20},
        ),
        ("0.0.0.0.1", "done", fetched),
    ]


async def test_failed_job_ends_the_stream_with_what_fetch_says(api, service, job_id):
    service.outcome = JobFailure(code="generation_failed", message="Failed, Try Again")
    (end,) = read((await api.http.get(f"{PATH}/{job_id}")).text)
    assert end[1:] == ("failed", await api.reply(f"/api/v4/dreambooth/fetch/{job_id}", {}))
    assert end[2]["reason"] == "generation_failed"


async def test_client_comes_back_to_where_it_was(api, service, job_id):
    mark = Mark(run=1, step=7)
    await api.http.get(f"{PATH}/{job_id}", headers={"last-event-id": str(mark)})
    assert service.follows == [mark]
    ((end_id, *_),) = read((await api.http.get(f"{PATH}/{job_id}")).text)
    again = await api.http.get(f"{PATH}/{job_id}", headers={"last-event-id": end_id})
    assert (again.status_code, again.text) == (204, "")


@pytest.mark.parametrize("text", ["", "x", "1.2.3.4", "1.2.3.4.9", "9" * 400, "-1.0.0.0.0"])
async def test_mark_that_is_none_counts_as_nothing_seen(text):
    assert Mark.parse(text) == Mark()


@pytest.fixture
def keyed(service):
    service.keys = {"a": "key_a", "b": "key_b"}
    return service


@pytest.mark.parametrize("path", ["/{}", "/4711", "/none"], ids=["other's", "none's", "no id"])
async def test_stream_of_anothers_job_is_refused_as_fetch_refuses_it(api, keyed, text_body, path):
    body = text_body | {"key": "a", "instant_response": "yes"}
    path = path.format((await api.reply("/api/v4/dreambooth", body))["id"])
    bearer = {"authorization": "Bearer b"}
    answer = await api.http.get(PATH + path, headers=bearer)
    assert answer.json() == await api.reply(f"/api/v4/dreambooth/fetch{path}", {"key": "b"})
    assert (await api.reply(PATH + path, {"key": "b"})) == answer.json()
    assert answer.json()["reason"] == "job_not_found"


async def test_token_is_told_for_how_many_whole_seconds_it_is(service, job_id):
    app = create_api(service, HttpConfig(), JobsConfig(), EventsConfig(token_ttl_s=90.7))
    assert (await Api(service, app).reply(f"{PATH}/{job_id}", {}))["expires_s"] == 90


async def test_key_or_token_opens_the_stream(api, keyed, text_body):
    body = text_body | {"key": "a", "instant_response": "yes"}
    path = f"{PATH}/{(await api.reply('/api/v4/dreambooth', body))['id']}"
    made = await api.reply(path, {"key": "a"})
    assert (made["status"], made["expires_s"]) == ("success", 300)
    for answer in (
        await api.http.get(path, params={"token": made["token"]}),
        await api.http.get(path, headers={"authorization": "Bearer a"}),
    ):
        assert read(answer.text)[-1][1] == "done"
    for answer in (
        await api.http.get(path),
        await api.http.get(path, params={"token": "1-key_a"}),
        await api.http.get(path, headers={"authorization": "Bearer c"}),
    ):
        assert answer.json()["reason"] == "invalid_key"


async def test_stream_of_a_revoked_key_ends_at_the_next_heartbeat(api, keyed, text_body):
    body = text_body | {"key": "a", "instant_response": "yes"}
    job_id = (await api.reply("/api/v4/dreambooth", body))["id"]

    async def follow(job, mark, *, has_previews):
        yield StartedMoment(Mark(run=1))
        del keyed.keys["a"]
        yield None
        raise AssertionError("nobody may hear more")

    keyed.follow = follow
    try:
        answer = await api.http.get(f"{PATH}/{job_id}", headers={"authorization": "Bearer a"})
    finally:
        del keyed.follow
    assert [name for _, name, _ in read(answer.text)] == ["started"]


async def test_stream_beyond_the_limit_is_refused_in_the_shape_of_the_api(api, service, job_id):
    service.refusal = errors.Overloaded(10)
    reply = (await api.http.get(f"{PATH}/{job_id}")).json()
    assert (reply["status"], reply["reason"], reply["retry_after"]) == ("error", "overloaded", 10)


async def test_stream_ends_after_so_many_bytes_and_the_next_one_goes_on(service, make_api):
    api = make_api(events=EventsConfig(max_stream_bytes=4096))
    body = {"model_id": "your_model_id", "prompt": "a", "instant_response": "yes"}
    job_id = (await api.reply("/api/v4/dreambooth", body))["id"]
    image = bytes(2000)
    service.moments = [PreviewMoment(Mark(1, 0, n, n + 1), image, n, 9) for n in range(1, 9)]
    told = read((await api.http.get(f"{PATH}/{job_id}")).text)
    assert [name for _, name, _ in told] == ["preview"] * 2
    await api.http.get(f"{PATH}/{job_id}", headers={"last-event-id": told[-1][0]})
    assert service.follows[-1] == Mark(1, 0, 2, 3)


class Client:
    """One end of a stream, without a server between."""

    def __init__(self, reads=True):
        self.reads = reads
        self.heard = []
        self.leaves = asyncio.Event()

    async def receive(self):
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        if message["type"] == "http.response.body" and not self.reads:
            await asyncio.Event().wait()
        self.heard.append(message)


class Pieces:
    """An endless stream that knows whether it was closed."""

    def __init__(self):
        self.num = 0
        self.is_closed = False

    async def make(self):
        try:
            while True:
                self.num += 1
                yield b"data"
                await asyncio.sleep(0)
        finally:
            self.is_closed = True


async def test_client_that_reads_nothing_is_dropped():
    client, pieces = Client(reads=False), Pieces()
    answer = EventStream(pieces.make(), send_timeout_s=0.05)
    await asyncio.wait_for(answer({}, client.receive, client.send), 5)
    assert (pieces.num, pieces.is_closed) == (1, True)
    assert [message["type"] for message in client.heard] == ["http.response.start"]


async def test_client_that_leaves_ends_the_stream():
    client, pieces = Client(), Pieces()
    answer = EventStream(pieces.make(), send_timeout_s=5)
    work = asyncio.create_task(answer({}, client.receive, client.send))
    while len(client.heard) < 5:
        await asyncio.sleep(0)
    client.leaves.set()
    await asyncio.wait_for(work, 5)
    assert pieces.is_closed
