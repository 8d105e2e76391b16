"""A heavy and a light caller over HTTP: the whole service but Ray, and one device with few rows.

The device is the real planner over pictures of the fake painter; a tick lasts two milliseconds.
"""

import asyncio
import itertools
from pathlib import Path

import httpx2
import pytest

from serve_app.api import create_api
from serve_app.config import AppConfig
from serve_app.engine.planner import Candidate, Planner, Policy
from serve_app.jobs.driver import Driver
from serve_app.jobs.rules import KeyRules
from serve_app.models import Catalogue, CatalogueView, ModelEntry
from serve_app.models.reload import Reloads
from serve_app.pipelines.fake import FakePainter
from serve_app.service.generation import GenerationService, Stores
from serve_app.testing.graph import FakeGraph
from serve_app.testing.jobs import MemoryJobStore, MemoryKeyStore
from serve_app.testing.models import MemoryModelStore
from serve_app.testing.storage import MemoryStore
from serve_app.types import JobResult, JobState, Kind
from tests.builders import webhook_body

TEXT2IMG = "/api/v4/dreambooth/text2img"
STEPS = 10


class Device(FakeGraph):
    """Two pictures fit into a forward. `order`: owners of the jobs that ended."""

    def __init__(self):
        super().__init__()
        self.order = []
        self._planner = Planner(Policy(max_live=4, max_guests=4), lambda _: 4)
        self._numbers = itertools.count()
        self._waiting, self._parked, self._left, self._ends = {}, {}, {}, {}
        self._painter = FakePainter()

    async def run(self, job):
        seq, stake = next(self._numbers), job.stake
        self._waiting[seq] = Candidate(seq, None, stake=stake)
        self._left[seq] = job.request.spec.steps
        self._ends[seq] = asyncio.Event()
        await self._ends[seq].wait()
        made = await self._painter.paint(job.id, job.request.spec, None, stake)
        self.order.append(job.request.key_id)
        return JobResult(keys=job.request.output.keys, nsfw=made.nsfw, generation_time_s=1.0)

    async def work(self):
        while True:
            await asyncio.sleep(0.002)
            plan = self._planner.next(self._parked.values(), self._waiting.values())
            for seq in plan.start:
                stake = self._waiting.pop(seq).stake
                self._parked[seq] = Candidate(seq, None, "one", 2, stake=stake)
            for seq in plan.batch:
                self._left[seq] -= 1
                if not self._left[seq]:
                    del self._parked[seq]
                    self._ends[seq].set()


class Site:
    """A service with keys, and a client of it."""

    def __init__(self):
        jobs = {"poll_s": 0.05, "hold_s": 20, "max_driven": 6, "max_driven_guests": 6}
        config = AppConfig.model_validate({"auth": {"mode": "keys"}, "jobs": jobs})
        self.device, self.keys = Device(), MemoryKeyStore()
        self.jobs = MemoryJobStore(keys=self.keys)
        entry = ModelEntry(id="demo", source=Path("nowhere"), kinds=tuple(Kind))
        self.driver = Driver(self.jobs, self.device, config.jobs, webhook_body)
        service = GenerationService(
            Stores(self.jobs, MemoryStore(), self.keys, self.jobs.outbox),
            CatalogueView(Catalogue([entry]), MemoryModelStore(), Path()),
            self.driver,
            self.device,
            Reloads(MemoryModelStore(), self.device.notify_replicas, config.reload),
            config,
        )
        app = create_api(service, config.http, config.jobs)
        transport = httpx2.ASGITransport(app=app)
        self.http = httpx2.AsyncClient(transport=transport, base_url="http://here", trust_env=False)

    async def key(self, name, **rules):
        key, secret = await self.keys.create(name, KeyRules(**rules))
        return key.id, secret

    async def ask(self, secret, **fields):
        body = {"key": secret, "model_id": "demo", "prompt": "a cat", "width": 64, "height": 64}
        body |= {"num_inference_steps": str(STEPS), **fields}
        return (await self.http.post(TEXT2IMG, json=body)).json()

    async def queue(self, secret, count, **fields):
        """Send calls that do not wait."""
        for _ in range(count):
            reply = await self.ask(secret, instant_response="yes", **fields)
            assert reply["status"] == "processing", reply


@pytest.fixture
async def site():
    site = Site()
    site.driver.start()
    work = asyncio.create_task(site.device.work())
    yield site
    work.cancel()
    await site.driver.close()
    await site.http.aclose()


async def test_light_caller_does_not_wait_for_the_jobs_of_the_heavy_one(site):
    heavy, heavy_secret = await site.key("heavy")
    light, light_secret = await site.key("light")
    await site.queue(heavy_secret, 60)
    for _ in range(2):
        before = len(site.device.order)
        assert (await site.ask(light_secret))["status"] == "success"
        meanwhile = site.device.order[before:]
        assert meanwhile.count(light) == 1
        assert meanwhile.count(heavy) < 15  # two at a time by age alone: all 60
    assert sum((await site.jobs.count_open()).values()) > 20


async def test_keys_get_pictures_by_weight(site):
    strong, strong_secret = await site.key("strong", weight=3)
    weak, weak_secret = await site.key("weak")
    await site.queue(weak_secret, 30)
    await site.queue(strong_secret, 30)
    begun = len(site.device.order)
    async with asyncio.timeout(20):
        while len(site.device.order) < begun + 24:
            await asyncio.sleep(0.005)
    counted = site.device.order[begun : begun + 24]
    assert counted.count(strong) >= 2 * counted.count(weak)
    assert weak in counted


async def test_call_may_ask_for_a_priority_up_to_what_its_key_may(site):
    key_id, secret = await site.key("plain")
    refused = await site.ask(secret, priority="1")
    assert refused["status"] == "error"
    assert "may not ask for a priority above 0" in str(refused["message"])
    assert (await site.ask(secret, priority=-1))["status"] == "success"
    await site.keys.change(key_id, KeyRules(max_priority=2))
    reply = await site.ask(secret, priority="2")
    assert reply["status"] == "success"
    assert (await site.jobs.get(reply["id"])).request.priority == 2
    assert (await site.ask(secret, priority=5))["status"] == "error"


async def test_urgent_call_is_done_before_older_ones_of_its_key(site):
    _, secret = await site.key("one", max_priority=1)
    await site.queue(secret, 30)
    reply = await site.ask(secret, priority=1)
    assert reply["status"] == "success"
    assert (await site.jobs.get(reply["id"])).state is JobState.SUCCESS
    assert sum((await site.jobs.count_open()).values()) > 5
