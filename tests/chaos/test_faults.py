"""One fault at a time, with one replica of everything, PostgreSQL and an S3 server: what it costs.

The table is in `out/chaos-faults.json`. What a deploy costs: `tests/ops/test_rollout.py`.
"""

import asyncio
import contextlib
import itertools
import json
import os
import subprocess
import time
from collections import Counter
from pathlib import Path

import httpx2
import psycopg
import pytest

from serve_app.cli.demo import free_port
from serve_app.config import DatabaseConfig
from serve_app.database.migrate import upgrade
from tests.chaos.harm import PostgresView, SqliteView
from tests.chaos.test_chaos import OUT, all_delivered
from tests.fake_app import MODEL, FakeApp
from tests.s3_server import S3Server
from tests.webhook_receiver import Receiver

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

PERIOD_S = 0.5  # from call to call
QUIET_S = 8.0  # before a fault and after it
END_S = 240.0  # until all is done; a machine may be loaded
MIB = 1 << 20

SECTIONS = {
    "engine": {"fake_step_s": 0.05},
    "jobs": {"lease_s": 5, "poll_s": 0.3, "outage_delay_s": 0.5},
    "webhooks": {
        "allowed_hosts": ["localhost"],
        "poll_s": 0.2,
        "timeout_s": 3,
        "lease_s": 5,
        "schedule_s": [0] + [2] * 60,
    },
}


class Clients:
    """Call every `PERIOD_S` without waiting for one another; nobody calls again."""

    def __init__(self, http, webhook):
        self.accepted = []
        self.refused = Counter()
        self.times = []  # of calls that were accepted
        self._http = http
        self._webhook = webhook

    async def run(self):
        async with asyncio.TaskGroup() as calls:
            for number in itertools.count():
                calls.create_task(self._call(number))
                await asyncio.sleep(PERIOD_S)

    async def _call(self, number):
        body = {"model_id": MODEL, "prompt": "a cat", "seed": number, "steps": 4}
        body |= {"width": 64, "height": 64, "safety_checker": "no", "instant_response": "yes"}
        body |= {"webhook": self._webhook}
        try:
            answer = (await self._http.post("/api/v4/dreambooth", json=body)).json()
        except (httpx2.TransportError, ValueError) as exc:
            answer = {"reason": type(exc).__name__}
        if answer.get("status") in {"processing", "success"}:
            self.accepted.append(answer["id"])
            self.times.append(time.time())
        else:
            self.refused[answer.get("reason")] += 1


def longest_gap(times):
    return max(after - before for before, after in itertools.pairwise(sorted(times)))


async def measure(app, view, receiver, fault):
    """Have calls come before, during and after a fault; return what became of them."""
    known = {row[0] for row in await asyncio.to_thread(view.jobs)}
    limits = httpx2.Limits(max_keepalive_connections=0)
    async with httpx2.AsyncClient(
        base_url=app.base_url, trust_env=False, timeout=30, limits=limits
    ) as http:
        clients = Clients(http, receiver.url)
        calling = asyncio.create_task(clients.run())
        await asyncio.sleep(QUIET_S)
        begun = time.time()
        await fault()
        ended = time.time()
        await asyncio.sleep(QUIET_S)
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
        async with asyncio.timeout(END_S):
            await all_delivered(view, len(known) + len(clients.accepted))
        done = time.time()
    jobs = {row[0]: row for row in view.jobs() if row[0] not in known}
    lost = [one for one in clients.accepted if one not in jobs or jobs[one][1] != "success"]
    return {
        "fault_s": round(ended - begun, 1),
        "accepted": len(clients.accepted),
        "refused": dict(clients.refused),
        "lost": len(lost),
        "begun_again": sum(row[2] > 1 for row in jobs.values()),
        "without_acceptance_s": round(longest_gap(clients.times), 1),
        "without_picture_s": round(longest_gap([row[5] for row in jobs.values()]), 1),
        "all_done_after_the_end_s": round(max(0.0, done - ended - QUIET_S), 1),
    }


def report(name, figures):
    OUT.mkdir(exist_ok=True)
    file = OUT / "chaos-faults.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(known | {name: figures}, indent=2) + "\n")


@pytest.fixture(scope="module")
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="module")
def store():
    server = S3Server()
    server.reset()
    yield server
    server.close()


@pytest.fixture(scope="module")
def app(tmp_path_factory, postgres_server, store):
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE faults")
    url = postgres_server.url("faults")
    upgrade(DatabaseConfig(url=url))
    sections = {**SECTIONS, "database": {"url": url}, "storage": store.settings()}
    app = FakeApp(tmp_path_factory.mktemp("faults"), free_port(), **sections)
    app.start()
    yield app
    app.kill()


async def kill(app, deployment):
    for process in app.replicas(deployment):
        process.kill()


async def restart(app):
    await asyncio.to_thread(app.kill)
    await asyncio.to_thread(app.start)


async def stop_database(server):
    await asyncio.to_thread(server.stop)
    await asyncio.sleep(20)
    await asyncio.to_thread(server.start)


@contextlib.contextmanager
def down(server, value):
    before, server.is_down = server.is_down, value
    yield
    server.is_down = before


async def stay_down(server, value, seconds):
    with down(server, value):
        await asyncio.sleep(seconds)


@pytest.mark.parametrize(
    "name", ["replica", "ingress", "upload", "database", "store", "receiver", "cluster"]
)
async def test_no_accepted_job_is_lost(name, app, receiver, postgres_server, store):
    faults = {
        "replica": lambda: kill(app, "Generator"),
        "ingress": lambda: kill(app, "Ingress"),
        "upload": lambda: kill(app, "Upload"),
        "database": lambda: stop_database(postgres_server),
        "store": lambda: stay_down(store, True, 20),
        "receiver": lambda: stay_down(receiver, lambda: True, 60),
        "cluster": lambda: restart(app),
    }
    view = PostgresView(postgres_server.url("faults"))
    figures = await measure(app, view, receiver, faults[name])
    report(name, figures)
    assert figures["lost"] == 0, figures
    assert figures["accepted"] > 0


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 MiB, which only root may make."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("no file system of its own can be mounted")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_full_disk_loses_no_accepted_job(small_disk, receiver):
    (small_disk / "app").mkdir()
    app = FakeApp(small_disk / "app", free_port(), **SECTIONS)
    app.start()
    try:
        view = SqliteView(app.data_dir / "dreamserve.db", lock_s=0)

        async def fill():
            ballast = small_disk / "ballast"
            await asyncio.to_thread(_fill, ballast)
            await asyncio.sleep(20)
            ballast.unlink()

        figures = await measure(app, view, receiver, fill)
    finally:
        app.kill()
    report("disk full, SQLite", figures)
    assert figures["lost"] == 0, figures
    assert sum(figures["refused"].values()) > 0


def _fill(file: Path):
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as ballast:
        while True:
            ballast.write(bytes(MIB))
    with contextlib.suppress(OSError), file.open("ab", buffering=0) as ballast:
        while True:
            ballast.write(bytes(512))
