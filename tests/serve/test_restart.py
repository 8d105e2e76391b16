"""The whole service goes away with open jobs and comes back: nothing is lost."""

import asyncio
import time

import httpx2
import pytest

from serve_app.cli.demo import free_port
from tests.fake_app import MODEL, FakeApp
from tests.webhook_receiver import Receiver

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(800)]  # with two starts
NUM_JOBS = 12
STEPS, MANY_STEPS = 4, 50  # of a quarter of a second; the last job is not to be done too early


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def app(tmp_path):
    app = FakeApp(
        tmp_path,
        free_port(),
        engine={"fake_step_s": 0.25},
        jobs={"lease_s": 2, "poll_s": 0.2, "max_driven": 3},
        webhooks={"allowed_hosts": ["localhost"], "poll_s": 0.2, "schedule_s": [0] + [1] * 60},
    )
    yield app
    app.kill()


async def submit(http, webhook, number):
    steps = MANY_STEPS if number == NUM_JOBS - 1 else STEPS
    body = {"model_id": MODEL, "prompt": "a cat", "width": 64, "height": 64, "steps": steps}
    body |= {"safety_checker": "no"}
    body |= {"webhook": webhook, "track_id": number, "instant_response": "yes"}
    answer = (await http.post("/api/v4/dreambooth", json=body)).json()
    assert answer["status"] == "processing", answer
    return answer["id"], answer["future_links"]


async def until(condition, timeout_s=150.0):  # of a loaded machine; seconds on a free one
    async with asyncio.timeout(timeout_s):
        while not await condition():
            await asyncio.sleep(0.2)


async def fetch(http, job_id):
    return (await http.post("/api/v4/dreambooth/fetch", json={"request_id": job_id})).json()


async def test_killed_service_finishes_its_jobs_when_it_is_back(
    app, starting, receiver, record_property
):
    receiver.is_down = lambda: True
    with starting:
        app.start()
    async with httpx2.AsyncClient(base_url=app.base_url, trust_env=False, timeout=30) as http:
        links = dict([await submit(http, receiver.url, number) for number in range(NUM_JOBS)])
        first, *_, last = links

        async def is_first_done():
            return (await fetch(http, first))["status"] == "success" and receiver.arrivals

        await until(is_first_done)
        assert (await fetch(http, last))["status"] == "processing"
    app.kill()
    receiver.is_down = lambda: False
    with starting:
        begun = time.monotonic()
        record_property("restart_s", app.start())
    async with httpx2.AsyncClient(base_url=app.base_url, trust_env=False, timeout=30) as http:

        async def has_all_arrived():
            return receiver.accepted().keys() == links.keys()

        await until(has_all_arrived)
        record_property("recovery_s", time.monotonic() - begun)
        for job_id, expected in links.items():
            answer = await fetch(http, job_id)
            assert (answer["status"], answer["output"]) == ("success", expected)
            assert (await http.get(expected[0])).status_code == 200
    for arrivals in receiver.accepted().values():
        assert len({(arrival.message_id, arrival.body) for arrival in arrivals}) == 1
