"""The service in Serve's HAProxy mode: `RAY_SERVE_ENABLE_HA_PROXY=1`."""

import asyncio
import sqlite3
import time

import httpx2
import psutil
import pytest

from serve_app.cli.demo import free_port
from tests.fake_app import MODEL, FakeApp
from tests.serve.test_inpaint import INPAINT, body

pytestmark = [pytest.mark.ops, pytest.mark.ray, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    folder = tmp_path_factory.mktemp("haproxy")
    app = FakeApp(folder, free_port(), engine={"fake_step_s": 0.2}, jobs={"hold_s": 30})
    files = folder / "haproxy"  # the default is one folder for all of a machine
    app.environment = {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(files / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(files),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(files / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
    }
    app.start()
    yield app
    app.kill()


@pytest.fixture
async def http(app):
    async with httpx2.AsyncClient(base_url=app.base_url, timeout=60, trust_env=False) as client:
        yield client


def listeners(app) -> list[psutil.Process]:
    return [process for process in app.processes() if process.name() == "haproxy"]


async def test_haproxy_answers_calls_with_pictures(app, http):
    assert listeners(app), "the Python proxy is at work"
    sent = {"x-request-id": "through-haproxy"}
    answer = await http.post(INPAINT, json=body(model_id=MODEL), headers=sent)
    assert answer.headers.get_list("x-request-id") == ["through-haproxy"]
    assert answer.json()["status"] == "success", answer.text
    picture = await http.get(answer.json()["output"][0])
    assert picture.headers["content-type"] == "image/png"


async def test_haproxy_hands_errors_through_as_they_are(http):
    answer = await http.post(INPAINT, json=body(model_id="nobody"))
    assert (answer.status_code, answer.json()["message"]) == (200, "Model id not found")
    large = await http.post(INPAINT, content=b"x" * (33 * 1024**2))
    assert large.json()["status"] == "error"


async def test_haproxy_hands_events_on_as_they_come(http):
    asked = {"model_id": MODEL, "prompt": "a", "num_inference_steps": 20, "safety_checker": "no"}
    path = "/api/v4/dreambooth"
    job = (await http.post(path, json=asked | {"instant_response": "yes"})).json()
    told, begun = {}, time.monotonic()
    async with http.stream("GET", f"{path}/events/{job['id']}") as answer:
        async for line in answer.aiter_lines():
            if line.startswith("event: "):
                told.setdefault(line.removeprefix("event: "), time.monotonic() - begun)
    assert told.keys() >= {"started", "progress", "preview", "done"}
    assert told["done"] - told["started"] > 1  # of the 4 s that it takes


def states(app) -> list[str]:
    with sqlite3.connect(app.data_dir / "dreamserve.db") as database:
        return [row[0] for row in database.execute("SELECT state FROM jobs")]


async def until_one_is(app, state: str) -> None:
    async with asyncio.timeout(120):
        while state not in states(app):
            await asyncio.sleep(0.1)


async def test_client_that_leaves_cancels_its_job_behind_haproxy(app, http):
    slow = body(model_id=MODEL, steps="50")
    call = asyncio.create_task(http.post(INPAINT, json=slow))
    await until_one_is(app, "processing")
    call.cancel()
    await until_one_is(app, "cancelled")


async def test_haproxy_listens_where_it_is_told(app):
    """Only its pages of figures are on every address: docs/deployment.md has them closed."""
    (proxy,) = listeners(app)[:1]
    port = int(app.base_url.rsplit(":", 1)[1])
    bound = [c.laddr for c in proxy.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert {address.ip for address in bound if address.port == port} == {"127.0.0.1"}
