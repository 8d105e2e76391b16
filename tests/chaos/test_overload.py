"""Ten times the capacity from 300 connections: refusals come fast, accepted jobs go on."""

import asyncio
import json
import random
import statistics
import time

import pytest

from serve_app.cli.demo import free_port
from tests.chaos.harm import SqliteView
from tests.chaos.test_chaos import report
from tests.chaos.wire import Wire
from tests.fake_app import MODEL, FakeApp

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]
CONNECTIONS = 300
DRIVEN = 4  # jobs at a time of each of the two drivers
JOB_S = 1.0
CAPACITY_PER_S = 2 * DRIVEN / JOB_S
DURATION_S = 20.0
TEXT2IMG = "/api/v4/dreambooth"


@pytest.fixture
def app(tmp_path):
    app = FakeApp(
        tmp_path,
        free_port(),
        engine={"fake_step_s": JOB_S / 4},
        jobs={"max_open": 4 * DRIVEN, "max_driven": DRIVEN, "poll_s": 0.2},
    )
    app.start()
    yield app
    app.kill()


class Crowd:
    """So many connections that each sends a call, waits for its turn and sends the next one."""

    def __init__(self, port, calls_per_s):
        self.accepted: list[float] = []  # seconds to answer
        self.refused: list[float] = []
        self.others: list[str] = []
        self._port = port
        self._pause_s = CONNECTIONS / calls_per_s

    async def call_for(self, duration_s):
        end = time.monotonic() + duration_s
        await asyncio.gather(*(self._caller(end) for _ in range(CONNECTIONS)))

    async def _caller(self, end):
        due = time.monotonic() + random.uniform(0, self._pause_s)
        async with Wire(self._port) as wire:
            while due < end:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                await self._call(wire)
                due = max(due + self._pause_s, time.monotonic())

    async def _call(self, wire):
        body = {"model_id": MODEL, "prompt": "a cat", "width": 64, "height": 64, "steps": 4}
        body |= {"safety_checker": "no", "instant_response": "yes"}
        begun = time.monotonic()
        try:
            answer = await wire.post(TEXT2IMG, body)
        except (OSError, EOFError, ValueError) as exc:
            self.others.append(type(exc).__name__)
            return
        took_s = time.monotonic() - begun
        if answer["status"] == "processing":
            self.accepted.append(took_s)
        elif answer.get("reason") == "overloaded":
            assert answer["retry_after"] > 0
            self.refused.append(took_s)
        else:
            self.others.append(json.dumps(answer))


def quantiles(seconds):
    cuts = statistics.quantiles(seconds, n=100)
    return {
        "count": len(seconds),
        "p50_s": round(cuts[49], 3),
        "p99_s": round(cuts[98], 3),
        "max_s": round(max(seconds), 3),
    }


async def drained(view, timeout_s=60.0):
    async with asyncio.timeout(timeout_s):
        while any(row[5] is None for row in await asyncio.to_thread(view.jobs)):
            await asyncio.sleep(0.2)


async def test_refusals_are_fast_while_accepted_jobs_go_on(app):
    view = SqliteView(app.data_dir / "dreamserve.db", lock_s=0)
    crowd = Crowd(app.port, 10 * CAPACITY_PER_S)
    await crowd.call_for(DURATION_S)
    await drained(view)
    rows = view.jobs()
    finished = [row[5] for row in rows]
    done_per_s = len(rows) / (max(finished) - min(row[4] for row in rows))
    figures = {
        "offered_per_s": 10 * CAPACITY_PER_S,
        "refused": quantiles(crowd.refused),
        "accepted": quantiles(crowd.accepted),
        "capacity_per_s": CAPACITY_PER_S,
        "done_per_s": round(done_per_s, 1),
        "slowest_job_s": round(max(row[5] - row[4] for row in rows), 1),
    }
    report("overload", figures)
    assert crowd.others == []
    assert {row[1] for row in rows} == {"success"}
    assert len(crowd.accepted) == len(rows)
    assert figures["refused"]["p99_s"] < 1.0, figures
    assert done_per_s > CAPACITY_PER_S / 2, figures
