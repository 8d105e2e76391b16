"""Nothing is lost: departures, killed replicas."""

import asyncio
import json
import socket
import sqlite3

import psutil
import pytest

from tests.processes import descendants
from tests.serve.test_inpaint import INPAINT, body

pytestmark = [pytest.mark.ray, pytest.mark.timeout(560)]  # with the start of the service
FETCH = "/api/v4/dreambooth/fetch"
SLOW = {"steps": "50", "width": "256", "height": "256", "samples": "4"}


def replica_of(deployment: str) -> psutil.Process:
    """The process of a replica, among those that this test session started."""
    for process, title in descendants():
        if title.partition(".")[0].endswith(f":{deployment}"):  # the method is after a dot
            return process
    raise AssertionError(f"no replica of {deployment}")


def row_of(service, job_id):
    with sqlite3.connect(service.data_dir / "dreamserve.db") as database:
        query = "SELECT state, attempts FROM jobs WHERE id = ?"
        return database.execute(query, (job_id,)).fetchone()


async def final(http, job_id):
    async with asyncio.timeout(180):  # of a loaded machine; seconds on a free one
        while True:
            answer = (await http.post(FETCH, json={"request_id": job_id})).json()
            if answer["status"] != "processing":
                return answer
            await asyncio.sleep(0.2)


async def state_of(service, job_id, wanted):
    async with asyncio.timeout(180):
        while row_of(service, job_id)[0] != wanted:
            await asyncio.sleep(0.1)


@pytest.mark.slow
async def test_killed_generator_does_not_lose_the_job(service, http):
    asked = body(instant_response="yes", **SLOW)
    answer = (await http.post(INPAINT, json=asked)).json()
    await progressing(http, answer["id"])
    replica_of("Generator:tiny").kill()
    done = await final(http, answer["id"])
    assert done["status"] == "success", done
    assert row_of(service, answer["id"])[1] > 1
    assert (await http.get(done["output"][3])).status_code == 200


async def progressing(http, job_id):
    async with asyncio.timeout(120):
        while True:
            answer = (await http.post(FETCH, json={"request_id": job_id})).json()
            if answer.get("progress") or answer["status"] != "processing":
                return
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("deployment", ["Upload", "Preprocess"])
async def test_job_that_needs_a_killed_replica_is_not_lost(http, deployment):
    replica_of(deployment).kill()
    asked = body(instant_response="yes", samples="4")
    answer = (await http.post(INPAINT, json=asked)).json()
    done = await final(http, answer["id"])
    assert done["status"] == "success", done
    assert (await http.get(done["output"][3])).status_code == 200


async def test_killed_ingress_does_not_lose_the_job(service, http):
    asked = body(instant_response="yes", **SLOW)
    answer = (await http.post(INPAINT, json=asked)).json()
    replica_of("Ingress").kill()
    await state_of(service, answer["id"], "success")


def newest_job(service):
    with sqlite3.connect(service.data_dir / "dreamserve.db") as database:
        return database.execute("SELECT id FROM jobs ORDER BY number DESC").fetchone()[0]


async def next_job(service, before):
    async with asyncio.timeout(120):
        while (job_id := newest_job(service)) == before:
            await asyncio.sleep(0.05)
    return job_id


async def test_client_that_hangs_up_frees_its_work(service, http):
    payload = json.dumps(body(**SLOW, seed=424242)).encode()
    head = (
        f"POST {INPAINT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(payload)}\r\n\r\n"
    ).encode()
    before = newest_job(service)
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        connection.sendall(head + payload)
        job_id = await next_job(service, before)
        await progressing(http, job_id)
    await state_of(service, job_id, "cancelled")
    assert (await http.post(INPAINT, json=body())).json()["status"] == "success"
