"""Webhooks from the running application to a receiver on this machine."""

import asyncio
import json

import pytest
from standardwebhooks import Webhook

from tests.serve.conftest import WEBHOOK_SECRET
from tests.serve.test_inpaint import INPAINT, body
from tests.webhook_receiver import Receiver

pytestmark = pytest.mark.ray


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.close()


async def accepted(receiver, job_id):
    async with asyncio.timeout(120):
        while not (arrivals := receiver.accepted().get(job_id)):
            await asyncio.sleep(0.1)
    return arrivals


async def submit(http, receiver, **changes):
    asked = body(webhook=receiver.url, track_id="order 7", instant_response="yes", **changes)
    answer = (await http.post(INPAINT, json=asked)).json()
    assert answer["status"] == "processing", answer
    return answer


async def test_result_reaches_the_receiver_signed(http, receiver):
    answer = await submit(http, receiver)
    (arrival,) = await accepted(receiver, answer["id"])
    told = Webhook(WEBHOOK_SECRET).verify(arrival.body, arrival.headers)
    assert told == json.loads(arrival.body)
    assert (told["status"], told["id"], told["track_id"]) == ("success", answer["id"], "order 7")
    assert told["output"] == answer["future_links"]
    assert (await http.get(told["output"][0])).status_code == 200
    assert arrival.headers["content-type"] == "application/json"


async def test_failure_reaches_the_receiver_without_its_inside(http, receiver):
    answer = await submit(http, receiver, init_image="http://localhost:1/none.png")
    (arrival,) = await accepted(receiver, answer["id"])
    told = json.loads(arrival.body)
    assert (told["status"], told["track_id"], told["output"]) == ("failed", "order 7", [])
    assert "Traceback" not in arrival.body


async def test_receiver_that_failed_gets_the_same_message_again(http, receiver):
    receiver.is_down = lambda: len(receiver.arrivals) < 2
    answer = await submit(http, receiver)
    await accepted(receiver, answer["id"])
    arrivals = receiver.arrivals
    assert [arrival.is_accepted for arrival in arrivals] == [False, False, True]
    assert len({(arrival.message_id, arrival.body) for arrival in arrivals}) == 1
    for arrival in arrivals:
        Webhook(WEBHOOK_SECRET).verify(arrival.body, arrival.headers)
    times = [int(arrival.headers["webhook-timestamp"]) for arrival in arrivals]
    assert times == sorted(times)


async def test_receiver_on_the_inside_is_refused_with_the_call(http, receiver):
    url = receiver.url.replace("localhost", "127.0.0.1")
    answer = (await http.post(INPAINT, json=body(webhook=url))).json()
    assert (answer["status"], list(answer["message"])) == ("error", ["webhook"])
    assert receiver.arrivals == []


async def test_cancelled_job_reaches_the_receiver_once(http, receiver):
    answer = await submit(http, receiver, steps=50, samples=4, width=512, height=512)
    path = f"/api/v4/dreambooth/cancel/{answer['id']}"
    for _ in range(2):  # the second finds it cancelled
        assert (await http.post(path)).json()["status"] == "success"
    (arrival,) = await accepted(receiver, answer["id"])
    told = json.loads(arrival.body)
    assert (told["status"], told["reason"], told["output"]) == ("failed", "cancelled", [])
    await asyncio.sleep(1)
    assert len(receiver.arrivals) == 1
