"""A thousand streams at one ingress, and one that nobody reads: what is served, what is left."""

import asyncio
import contextlib
import gc
import json
import socket
import tracemalloc

import pytest
import uvicorn

from serve_app.api import create_api
from serve_app.types import Sight
from tests.builders import job_request
from tests.unit.service.test_generation import Bench

PATH = "/api/v4/dreambooth/events"
NUM_KEYS = 25


class Site(Bench):
    """The service with its HTTP side, and jobs of many keys that others drive."""

    def __init__(self, **events):
        super().__init__(events={"look_s": 0.05, **events})
        self.app = create_api(self.service, self.config.http, self.config.jobs, self.config.events)

    async def begin(self, num_keys=1):
        """Queue a job for each key; return the paths of their streams with the keys."""
        self.streams = []
        for number in range(num_keys):
            key, secret = await self.keys.create(f"team {number}")
            job = await self.jobs.add(job_request(key_id=key.id), max_open=num_keys)
            self.streams.append((f"{PATH}/{job.id}", secret))
        await self.jobs.claim("elsewhere", 600, num_keys)
        self.job = job


@pytest.fixture
async def make_site():
    running = []

    async def make(num_keys=1, **events):
        site = Site(**events)
        await site.begin(num_keys)
        site.driver.start()
        running.append((site, asyncio.create_task(site.service.audience.run())))
        return site

    yield make
    for site, looks in running:
        looks.cancel()
        await site.driver.close()


class Viewer:
    """One client of a stream, without a socket between."""

    def __init__(self, app, path, secret):
        self.head, self.body = None, b""
        self.is_answered = asyncio.Event()
        self.leaves = asyncio.Event()
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
            "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"",
            "root_path": "", "client": ("a", 1), "server": ("a.b", 80),
            "headers": [(b"authorization", f"Bearer {secret}".encode())],
        }  # fmt: skip
        self.work = asyncio.create_task(app(scope, self.receive, self.send))

    async def receive(self):
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        if message["type"] == "http.response.start":
            self.head = dict(message["headers"])
        else:
            self.body += message["body"]
            self.is_answered.set()

    @property
    def is_served(self):
        return self.head[b"content-type"].startswith(b"text/event-stream")


async def crowd(site, num_streams):
    """Open so many streams; return those that are served, and the replies of the others."""
    each = num_streams // len(site.streams)
    viewers = [Viewer(site.app, *stream) for stream in site.streams for _ in range(each)]
    assert len(viewers) == num_streams
    async with asyncio.timeout(60):
        await asyncio.gather(*(viewer.is_answered.wait() for viewer in viewers))
    served = [viewer for viewer in viewers if viewer.is_served]
    refused = [viewer for viewer in viewers if not viewer.is_served]
    await asyncio.gather(*(viewer.work for viewer in refused))
    return served, [json.loads(viewer.body) for viewer in refused]


async def leave(viewers):
    for viewer in viewers:
        viewer.leaves.set()
    async with asyncio.timeout(30):
        await asyncio.gather(*(viewer.work for viewer in viewers))


@pytest.mark.parametrize(
    "num_streams",
    [pytest.param(100, id="100"), pytest.param(1000, marks=pytest.mark.long, id="1000")],
)
async def test_streams_stay_within_the_limit_and_leave_nothing(make_site, num_streams):
    most = num_streams // 5
    site = await make_site(NUM_KEYS, max_streams=most)
    num_tasks = len(asyncio.all_tasks())
    served, replies = await crowd(site, num_streams)
    audience = site.service.audience
    assert len(served) == audience.num_streams == most
    assert len(replies) == audience.refused == num_streams - most
    told = {(one["status"], one["reason"], one["retry_after"]) for one in replies}
    assert told == {("error", "overloaded", 10)}
    assert len(site.graph.looks[-1]) <= NUM_KEYS  # one question for all streams of a job
    assert len(asyncio.all_tasks()) <= num_tasks + 6 * most
    await leave(served)
    assert audience.num_streams == 0
    assert audience._watched == {}
    assert len(asyncio.all_tasks()) == num_tasks
    again = Viewer(site.app, *site.streams[-1])
    await asyncio.wait_for(again.is_answered.wait(), 5)
    assert again.is_served
    await leave([again])


@pytest.mark.parametrize(
    "num_streams",
    [pytest.param(50, id="50"), pytest.param(1000, marks=pytest.mark.long, id="1000")],
)
async def test_memory_of_streams_is_had_back_when_clients_leave(make_site, num_streams):
    site = await make_site(NUM_KEYS, max_streams=num_streams)

    async def wave():
        served, _ = await crowd(site, num_streams)
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
        await leave(served)
        del served
        gc.collect()
        return held, tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        await wave()  # imports, and what else comes first
        _, before = await wave()
        held, after = await wave()
    finally:
        tracemalloc.stop()
    assert held - before < num_streams * 80_000
    assert after - before < (held - before) / 10


@contextlib.asynccontextmanager
async def served(app):
    """Serve on a port of its own, which is yielded."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        config = uvicorn.Config(app, log_level="critical", interface="asgi3", lifespan="off")
        server = uvicorn.Server(config)
        work = asyncio.create_task(server.serve([listener]))
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await work


def rest_of(client):
    """Read until the connection ends."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(2**20):
            parts.append(part)
    return b"".join(parts)


async def test_stream_that_nobody_reads_is_ended(make_site):
    """Over sockets, whose buffers take some of what is sent before anybody notices."""
    site = await make_site(send_timeout_s=0.5, max_stream_bytes=2**30)
    path, secret = site.streams[0]
    ask = f"GET {path} HTTP/1.1\r\nHost: a.b\r\nAuthorization: Bearer {secret}\r\n\r\n"
    audience, preview, step = site.service.audience, bytes(2**20), 0
    async with served(site.app) as port:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(10)
            client.connect(("127.0.0.1", port))
            client.sendall(ask.encode())
            async with asyncio.timeout(20):
                while not audience.num_streams:
                    await asyncio.sleep(0.01)
                while audience.num_streams:
                    step += 1
                    site.graph.sights[site.job.id] = Sight(step, 999, preview, step)
                    await asyncio.sleep(0.05)
            heard = await asyncio.to_thread(rest_of, client)
    assert heard.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"event: preview" in heard
    assert not heard.endswith(b"0\r\n\r\n"), "it was broken off, so that the client comes back"
