"""How calls arrive: long headers, large and slow bodies, and what is left of them when answered."""

import asyncio
import contextlib
import json
import socket

import pytest
import uvicorn
from structlog.testing import capture_logs

from serve_app.api import create_api
from serve_app.config import HttpConfig, JobsConfig

pytestmark = pytest.mark.slow

TEXT2IMG = "/api/v6/images/text2img"
NOWHERE = "/api/v6/nowhere"
CALL = json.dumps({"model_id": "your_model_id", "prompt": "a"}).encode()
FAST = HttpConfig(body_timeout_s=0.1, max_body_bytes=4096)


class Wire:
    """One call to an app, as a server makes it: what came in and what went out, in order."""

    def __init__(self, pieces, headers=(), path=TEXT2IMG, query=b"", method="POST"):
        self.events = []
        self._pieces = list(pieces)
        self._scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
            "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": query,
            "root_path": "", "client": ("a", 1), "server": ("a.b", 80),
            "headers": [(name.encode(), str(value).encode()) for name, value in headers],
        }  # fmt: skip

    async def receive(self):
        if not self._pieces:
            await asyncio.Event().wait()  # the client sends nothing any more, and stays
        piece = self._pieces.pop(0)
        if piece is None:
            return {"type": "http.disconnect"}
        if isinstance(piece, Exception):
            raise piece
        if isinstance(piece, asyncio.Event):
            await piece.wait()
            piece = b""
        self.events.append("in")
        return {"type": "http.request", "body": piece, "more_body": bool(self._pieces)}

    async def send(self, message):
        self.events.append(message["type"].rpartition(".")[2])
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        elif message["body"]:
            self.reply = json.loads(message["body"])
        self.is_done = not message.get("more_body", False)

    async def call(self, app):
        async with asyncio.timeout(30):
            await app(self._scope, self.receive, self.send)
        return self


@pytest.fixture
def make_app(service):
    return lambda http=FAST: create_api(service, http, JobsConfig())


CHUNKED = [("transfer-encoding", "chunked")]


async def test_answer_that_needs_no_body_waits_for_its_end(make_app):
    wire = await Wire([b"a", b"b", b"c"], [("content-length", 3)], NOWHERE).call(make_app())
    assert wire.events == ["in", "in", "in", "start", "body"]
    assert wire.status == 404
    assert "connection" not in wire.headers


@pytest.mark.parametrize("headers", [CHUNKED, [("content-length", 100)]])
@pytest.mark.parametrize("path", [TEXT2IMG, NOWHERE, "/admin/models", "/files/x"])
async def test_slow_body_is_given_up_and_its_connection_closed(make_app, headers, path):
    wire = Wire([b"{", asyncio.Event()], headers, path)
    wire = await wire.call(make_app())
    assert wire.headers["connection"] == "close"
    assert wire.is_done
    if path == TEXT2IMG:
        assert (wire.status, wire.reply["reason"]) == (408, "body_too_slow")


async def test_time_counts_until_the_body_is_there_and_no_longer(make_app, service):
    app = make_app(HttpConfig(body_timeout_s=0.05))
    service.never_answers = True
    wire = Wire([CALL], [("content-length", len(CALL))])
    calling = asyncio.create_task(wire.call(app))
    await service.held.wait()
    await asyncio.sleep(0.2)
    assert not calling.done()
    calling.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await calling


async def test_declared_200_mb_are_refused_before_a_byte_is_read(make_app):
    wire = Wire([b"x" * 1000] * 9, [("content-length", 200 * 1024**2)])
    await wire.call(make_app())
    assert (wire.status, wire.reply["reason"]) == (413, "body_too_large")
    assert wire.headers["connection"] == "close"
    # The client can read all of it before the connection is closed, and sends on meanwhile.
    assert wire.events == ["start", "body", *["in"] * 5, "body"]


async def test_body_is_refused_where_it_exceeds_the_limit(make_app):
    wire = await Wire([b" " * 1000] * 99, CHUNKED).call(make_app())
    assert (wire.status, wire.reply["reason"]) == (413, "body_too_large")
    assert wire.events == [*["in"] * 5, "start", "body", *["in"] * 5, "body"]
    assert wire.headers["connection"] == "close"


@pytest.mark.parametrize(("length", "is_over"), [("4096", False), ("4097", True), ("9" * 40, True)])
async def test_declared_length_is_judged(make_app, length, is_over):
    wire = await Wire([b"{}", b""], [("content-length", length)]).call(make_app())
    assert (wire.status == 413) is is_over


@pytest.mark.parametrize(
    "parts",
    [
        {"headers": [("cookie", "c" * 3000)]},
        {"headers": [(f"x-{number}", "1") for number in range(500)]},
        {"query": b"q" * 3000},
        {"path": TEXT2IMG + "/x" * 1500},
    ],
    ids=["one", "many", "query", "path"],
)
async def test_long_headers_are_refused(make_app, parts):
    app = make_app(HttpConfig(max_header_bytes=2048))
    wire = await Wire([b"{}"], **parts).call(app)
    assert (wire.status, wire.reply["reason"]) == (431, "headers_too_large")
    assert (await Wire([CALL], [("cookie", "c" * 1900)]).call(app)).status == 200


async def test_long_headers_are_refused_in_the_form_of_the_family(make_app):
    app = make_app(HttpConfig(max_header_bytes=2048))
    wire = await Wire([CALL], [("cookie", "c" * 3000)], "/api/v4/dreambooth").call(app)
    assert (wire.status, wire.reply["reason"]) == (200, "headers_too_large")


async def test_call_without_a_body_awaits_none(make_app):
    wire = await Wire([], path="/health/live", method="GET").call(make_app())
    assert (wire.status, wire.events) == (200, ["start", "body"])
    assert "connection" not in wire.headers


async def test_bodies_that_have_not_arrived_are_limited_together(make_app):
    app = make_app(HttpConfig(max_arriving_bytes=10_000))
    rest = asyncio.Event()
    waiting = [Wire([b" " * 4000, rest, CALL], CHUNKED) for _ in range(2)]
    calls = [asyncio.create_task(wire.call(app)) for wire in waiting]
    while not all(wire.events for wire in waiting):
        await asyncio.sleep(0)
    refused = await Wire([b" " * 4000, b"", CALL], CHUNKED).call(app)
    assert (refused.status, refused.reply["reason"]) == (503, "overloaded")
    small = await Wire([CALL[:5], CALL[5:]], CHUNKED).call(app)
    rest.set()
    await asyncio.gather(*calls)
    assert [wire.status for wire in (small, *waiting)] == [200, 200, 200]
    again = await Wire([b" " * 4000, b"", CALL], CHUNKED).call(app)
    assert again.status == 200


async def test_large_bodies_that_stay_unfinished_do_not_have_those_of_others_refused(make_app):
    app = make_app(HttpConfig(max_arriving_bytes=10_000))
    waiting = [Wire([b" " * 4900, asyncio.Event()], CHUNKED) for _ in range(2)]
    calls = [asyncio.create_task(wire.call(app)) for wire in waiting]
    while not all(wire.events for wire in waiting):
        await asyncio.sleep(0)
    for _ in range(3):
        other = await Wire([b" " * 1000, b"", CALL], CHUNKED).call(app)
        assert other.status == 200
    async with asyncio.timeout(10):
        while "body" not in waiting[1].events:
            await asyncio.sleep(0.01)
    assert (waiting[1].status, waiting[1].reply["reason"]) == (503, "overloaded")
    assert waiting[1].headers["connection"] == "close"
    assert waiting[0].events == ["in"]
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


@pytest.mark.parametrize("path", [TEXT2IMG, NOWHERE, "/api/v3/base64_crop"])
@pytest.mark.parametrize("end", [None, RuntimeError("as Ray says it")], ids=["asgi", "ray"])
async def test_client_that_leaves_while_it_sends_is_no_error(make_app, path, end):
    with capture_logs() as lines:
        await Wire([b"{", end], CHUNKED, path).call(make_app())
    assert {line["log_level"] for line in lines} == {"info"}


# On a real socket


@pytest.fixture(params=["httptools", "h11"])
async def served(request, make_app):
    """The app behind uvicorn, as Serve's proxy and the replicas of HAProxy mode run it."""
    http = HttpConfig(body_timeout_s=1.0, max_body_bytes=64 * 1024)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(make_app(http), http=request.param, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext
    running = asyncio.create_task(server.serve([listener]))
    yield listener.getsockname()[1]
    server.should_exit = True
    await running


async def read_all(reader):
    """Read until the server hangs up; what is on its way to it by then makes that a reset."""
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := await reader.read(65_536):
            answer += piece
    return answer


async def drip(port, head, *, every_s=0.05):
    """Send a head, then a byte now and then; returns the answer when the server hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{head}\r\nhost: a\r\n\r\n".encode())
    answer = asyncio.create_task(read_all(reader))
    while not answer.done():
        writer.write(b"1\r\n \r\n" if "chunked" in head else b" ")
        await asyncio.wait([answer], timeout=every_s)
    writer.close()
    return answer.result().decode()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "header", "status"),
    [
        (TEXT2IMG, "content-length: 1000", 408),
        (TEXT2IMG, "transfer-encoding: chunked", 408),
        (TEXT2IMG, "content-length: 99999999", 413),
        (NOWHERE, "content-length: 1000", 404),
        ("/health/live", "content-length: 1000", 405),
    ],
)
async def test_24_clients_that_drip_their_bodies_are_sent_away(served, path, header, status):
    async with asyncio.timeout(30):
        calls = (drip(served, f"POST {path} HTTP/1.1\r\n{header}") for _ in range(24))
        answers = await asyncio.gather(*calls)
    for answer in answers:
        assert answer.startswith(f"HTTP/1.1 {status} "), answer
        assert "connection: close" in answer


async def test_100_kb_of_headers_are_refused(served):
    reader, writer = await asyncio.open_connection("127.0.0.1", served)
    writer.write(b"GET /health/live HTTP/1.1\r\nhost: a\r\nconnection: close\r\n")
    writer.write(b"cookie: " + b"c" * 100_000 + b"\r\n\r\n")
    answer = await read_all(reader)
    writer.close()
    assert answer.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 ")), answer  # h11's own: 64 KiB


async def test_refusal_of_a_large_body_can_be_read_by_a_client_that_sends_on(served):
    reader, writer = await asyncio.open_connection("127.0.0.1", served)
    head = f"POST {TEXT2IMG} HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n"
    writer.write(head.encode() + b" " * 100_000)
    await writer.drain()
    answer = await read_all(reader)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"body_too_large" in answer
