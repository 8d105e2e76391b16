"""Replies with base64 are written in pieces, and hold no more at a time than they may."""

import asyncio
import base64
import io
import json
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from serve_app import errors
from serve_app.api import create_api
from serve_app.api.protocol import StoredFile
from serve_app.api.replies.budget import Budget
from serve_app.config import EventsConfig, HttpConfig, JobsConfig

PATH = "/v1/images/generations"
BODY = {"model": "your_model_id", "prompt": "a cat"}
MB = 1024**2


class Files(dict):
    """Files of a size; each says when it is read, and the first `has` are there."""

    def __init__(self, size, has=9):
        super().__init__()
        self.size, self.has, self.reads = size, has, 0

    def get(self, key):
        self.reads += 1
        if self.reads > self.has:
            return None
        return StoredFile(key[-1].encode() + bytes(self.size), "image/png")


async def post(app, body, send):
    data = json.dumps(BODY | body).encode()
    head = {"content-type": "application/json", "content-length": str(len(data))}
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
        "scheme": "http", "path": PATH, "raw_path": PATH.encode(), "query_string": b"",
        "root_path": "", "client": ("a", 1), "server": ("a.b", 80),
        "headers": [(name.encode(), value.encode()) for name, value in head.items()],
    }  # fmt: skip
    incoming = [{"type": "http.request", "body": data, "more_body": False}]

    async def receive():
        return incoming.pop() if incoming else await asyncio.Event().wait()

    await app(scope, receive, send)


@pytest.mark.parametrize("size", [0, 1, 768 * 1024, 2 * MB], ids=str)
async def test_base64_in_pieces_is_that_of_the_whole(api, service, size):
    service.files = Files(size)
    reply = (await api.post(PATH, BODY | {"n": 2})).json()
    keys = service.jobs[reply["id"]].request.output.keys
    wanted = [key[-1].encode() + bytes(size) for key in keys]
    assert [base64.b64decode(row["b64_json"], validate=True) for row in reply["data"]] == wanted
    text = (await api.post(PATH, BODY | {"n": 2, "stream": True})).text
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    assert [base64.b64decode(event["b64_json"], validate=True) for event in events] == wanted


@pytest.mark.parametrize("stream", [False, True], ids=["reply", "stream"])
async def test_reply_holds_one_picture_at_a_time(shared, service, stream):
    service.files = Files(8 * MB)
    sent = 0

    async def send(message):
        nonlocal sent
        sent += len(message.get("body", b""))

    await post(shared[1], {"n": 4, "stream": stream}, send)  # imports, and what else comes first
    tracemalloc.start()
    try:
        await post(shared[1], {"n": 4, "stream": stream}, send)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sent > 2 * 4 * 8 * MB * 4 / 3
    assert peak < 4 * 8 * MB  # less than the files: the fake makes two of one


async def test_room_is_held_for_the_largest_file_of_a_size(api, service, monkeypatch):
    """It is one of noise, which no compression makes smaller."""
    held, hold = [], Budget.hold
    monkeypatch.setattr(Budget, "hold", lambda self, size: held.append(size) or hold(self, size))
    service.files = Files(10)
    assert (await api.post(PATH, BODY | {"size": "512x256"})).status_code == 200
    pixels = np.random.default_rng(0).integers(0, 256, (256, 512, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file := io.BytesIO(), "png")
    assert held
    assert all(0 <= size - len(file.getvalue()) <= 64 * 1024 for size in held)


async def test_replies_wait_for_those_whose_clients_do_not_read(service):
    http, events = HttpConfig(max_reply_bytes=MB), EventsConfig(send_timeout_s=0.5)
    app = create_api(service, http, JobsConfig(), events)
    service.files, heard, reached = Files(10), [], asyncio.Event()

    async def stand_still(message):
        if message["type"] == "http.response.body":
            reached.set()
            await asyncio.Event().wait()

    async def hear(message):
        heard.append(message)

    first = asyncio.create_task(post(app, {}, stand_still))
    await asyncio.wait_for(reached.wait(), 5)
    second = asyncio.create_task(post(app, {}, hear))
    await asyncio.wait([second], timeout=0.2)
    assert (service.files.reads, heard) == (1, [])
    await asyncio.wait_for(asyncio.gather(first, second), 5)  # the first one is dropped
    assert heard[0]["status"] == 200
    assert heard[-1]["more_body"] is False


async def test_first_file_that_is_lost_is_an_error_and_a_later_one_breaks_off(api, service, shared):
    service.files = Files(10, has=0)
    answer = await api.post(PATH, BODY | {"n": 2})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage_unavailable")
    service.files, heard = Files(10, has=1), []

    async def hear(message):
        heard.append(message)

    await post(shared[1], {"n": 2}, hear)
    assert heard[0]["status"] == 200
    assert heard[-1]["more_body"] is True


async def test_budget_is_had_in_turn_and_a_large_picture_alone():
    budget, order = Budget(100, wait_s=5), []

    async def take(size):
        async with budget.hold(size):
            order.append(size)
            await asyncio.sleep(0)

    async with budget.hold(60):
        waiting = [asyncio.create_task(take(size)) for size in (500, 30)]
        await asyncio.sleep(0.01)
        assert order == []  # the small one does not overtake
    await asyncio.wait_for(asyncio.gather(*waiting), 5)
    assert order == [500, 30]


async def test_budget_refuses_who_has_waited_too_long_and_forgets_who_left():
    budget = Budget(100, wait_s=0.01)
    async with budget.hold(100):
        with pytest.raises(errors.Overloaded):
            async with budget.hold(1):
                pytest.fail("there is no room")
    async with budget.hold(100):
        pass
