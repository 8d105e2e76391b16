"""Streams of events over real HTTP: two ingress replicas, of which one at most drives a job."""

import asyncio
import contextlib
import json

import httpx2
import pytest

from serve_app.cli.demo import free_port
from tests.fake_app import MODEL, FakeApp

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(500)]
PATH = "/api/v4/dreambooth"
STEPS, MANY_STEPS = 20, 50  # of a quarter of a second
MAX_STREAMS = 8  # of one ingress replica


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    app = FakeApp(
        tmp_path_factory.mktemp("events"),
        free_port(),
        replicas=2,
        engine={"fake_step_s": 0.25},
        events={"max_streams": MAX_STREAMS, "heartbeat_s": 1},
    )
    app.start()
    yield app
    app.stop()


@pytest.fixture
async def http(app):
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx2.AsyncClient(
        base_url=app.base_url, trust_env=False, timeout=150, limits=limits
    ) as client:
        yield client


async def begin(http, steps=STEPS):
    body = {"model_id": MODEL, "prompt": "a cat", "num_inference_steps": steps}
    body |= {"safety_checker": "no", "instant_response": "yes"}
    return (await http.post(PATH, json=body)).json()


async def watch(http, job_id, **headers):
    """Read a stream to its end: (id, event, data)."""
    found, event = [], {}
    async with http.stream("GET", f"{PATH}/events/{job_id}", headers=headers) as answer:
        if not answer.headers.get("content-type", "").startswith("text/event-stream"):
            await answer.aread()
            return answer.json() if answer.content else answer.status_code
        async for line in answer.aiter_lines():
            name, _, value = line.partition(": ")
            event[name] = value
            if not line and "event" in event:
                found.append((event["id"], event["event"], json.loads(event["data"])))
            if not line:
                event = {}
    return found


def names(events):
    return [name for _, name, _ in events]


async def test_every_stream_tells_the_whole_job_wherever_it_is_driven(http):
    job = await begin(http)
    assert job["queue_place"] == 1
    streams = await asyncio.gather(*(watch(http, job["id"]) for _ in range(6)))
    fetched = (await http.post(f"{PATH}/fetch/{job['id']}", json={})).json()
    for events in streams:
        told = names(events)
        assert told[0] in ("queued", "started")
        assert told.count("started") == told.count("done") == 1
        steps = [data["step"] for _, name, data in events if name == "progress"]
        assert steps == sorted(set(steps))
        assert len(steps) >= 3
        assert told.count("preview") >= 2
        assert events[-1][1:] == ("done", fetched)


async def test_client_that_comes_back_hears_the_rest_and_then_nothing(http):
    job = await begin(http)
    async with http.stream("GET", f"{PATH}/events/{job['id']}") as answer:
        async for line in answer.aiter_lines():
            if line.startswith("id: 1.") and "." in line:
                seen = line.removeprefix("id: ")
            if line.startswith("event: progress"):
                break
    rest = await watch(http, job["id"], **{"last-event-id": seen})
    assert "started" not in names(rest)
    assert names(rest)[-1] == "done"
    assert await watch(http, job["id"], **{"last-event-id": rest[-1][0]}) == 204
    assert names(await watch(http, job["id"])) == ["done"]


async def test_cancelled_job_ends_its_streams(http):
    job = await begin(http, MANY_STEPS)
    watching = asyncio.create_task(watch(http, job["id"]))
    await asyncio.sleep(1)
    await http.post(f"{PATH}/cancel/{job['id']}", json={})
    events = await asyncio.wait_for(watching, 60)
    assert (events[-1][1], events[-1][2]["reason"]) == ("failed", "cancelled")


async def test_streams_beyond_the_limit_are_refused_and_those_that_leave_make_room(http):
    job = await begin(http, MANY_STEPS)
    num_served, refusals = 0, []
    async with contextlib.AsyncExitStack() as stack:
        opened = [http.stream("GET", f"{PATH}/events/{job['id']}") for _ in range(30)]
        # All at once: one after the other the last would come to a job that is done.
        for answer in await asyncio.gather(*map(stack.enter_async_context, opened)):
            if answer.headers["content-type"].startswith("text/event-stream"):
                num_served += 1
            else:
                await answer.aread()
                refusals.append(answer.json())
    assert MAX_STREAMS <= num_served <= 2 * MAX_STREAMS
    assert {(one["status"], one["reason"]) for one in refusals} == {("error", "overloaded")}
    again = await begin(http)
    async with asyncio.timeout(60):  # it hears of those that left when it writes to them
        while isinstance(told := await watch(http, again["id"]), dict):
            assert told["reason"] == "overloaded"
            await asyncio.sleep(0.2)
    assert names(told)[-1] == "done"


async def test_client_that_reads_nothing_harms_nobody(app, http):
    job = await begin(http)
    _reader, writer = await asyncio.open_connection("127.0.0.1", app.port, limit=1)
    writer.write(f"GET {PATH}/events/{job['id']} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    await writer.drain()
    assert names(await watch(http, job["id"]))[-1] == "done"
    writer.close()
    assert (await begin(http))["status"] == "processing"
