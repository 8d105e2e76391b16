"""SIGTERM, as process managers and `docker stop` send it, ends `dreamserve run` as Ctrl-C does."""

import contextlib
import signal
import sqlite3
import time

import httpx2
import pytest

from serve_app.cli.demo import free_port
from serve_app.cli.serving import service
from tests.serve.test_applications import Installation

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(560)]

START_S = 240  # on a loaded machine


def await_ready(http, child):
    deadline = time.monotonic() + START_S
    while True:
        assert child.poll() is None
        assert time.monotonic() < deadline
        with contextlib.suppress(httpx2.TransportError, ValueError):
            if http.get("/health/ready").json().get("status") == "ready":
                return
        time.sleep(0.2)


def await_line(log, line):
    """Wait for what the service says once it has asked itself, which it does every second."""
    deadline = time.monotonic() + 60
    while line not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()[-2000:]
        time.sleep(0.2)


def test_job_at_work_ends_or_waits_for_the_next_start(tmp_path, starting):
    installed = Installation(tmp_path, free_port())
    body = {"model_id": "first", "prompt": "a cat", "width": "64", "height": "64"}
    body |= {"steps": "40", "instant_response": "yes"}  # 4 s
    with (
        installed.log.open("wb") as written,
        service(installed.file, "127.0.0.1", installed.port, written) as child,
        httpx2.Client(base_url=installed.base_url, timeout=30, trust_env=False) as http,
    ):
        with starting:
            await_ready(http, child)
        await_line(installed.log, f"dreamserve: ready at {installed.base_url} after ")
        job_id = http.post("/api/v4/dreambooth", json=body).json()["id"]
        while not (time.sleep(0.1) or _column(tmp_path, job_id, "attempts")):
            pass
        child.send_signal(signal.SIGTERM)
        assert child.wait(180) == 0, installed.log.read_text()[-2000:]
    assert "SIGTERM received" not in installed.log.read_text()  # Ray's words beside a stack
    assert _column(tmp_path, job_id, "state") in {"success", "queued"}


def _column(folder, job_id, name):
    with contextlib.closing(sqlite3.connect(folder / "var" / "dreamserve.db")) as jobs:
        query = f"SELECT {name} FROM jobs WHERE id = ?"
        return jobs.execute(query, [job_id]).fetchone()[0]
