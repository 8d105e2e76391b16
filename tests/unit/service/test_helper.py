"""The use cases of the helper calls."""

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from serve_app import errors
from serve_app.config import AppConfig
from serve_app.jobs.driver import Driver
from serve_app.models import Catalogue, CatalogueView
from serve_app.models.reload import Reloads
from serve_app.service.generation import GenerationService, Stores
from serve_app.telemetry.actor import actor
from serve_app.testing.graph import FakeGraph
from serve_app.testing.jobs import MemoryJobStore, MemoryKeyStore
from serve_app.testing.models import MemoryModelStore
from serve_app.testing.storage import MemoryStore
from serve_app.types import ImageSource, JobState, OutputPlan
from tests.builders import job_request, webhook_body


class Bench:
    def __init__(self, **sections):
        config = AppConfig.model_validate({"auth": {"mode": "keys"}, **sections})
        self.graph, self.jobs, self.files = FakeGraph(), MemoryJobStore(), MemoryStore()
        self.driver = Driver(self.jobs, self.graph, config.jobs, webhook_body)
        self.service = GenerationService(
            Stores(self.jobs, self.files, MemoryKeyStore(), self.jobs.outbox),
            CatalogueView(Catalogue([]), MemoryModelStore(), Path()),
            self.driver,
            self.graph,
            Reloads(MemoryModelStore(), self.graph.notify_replicas, config.reload),
            config,
        )


@pytest.fixture
async def bench():
    bench = Bench()
    yield bench
    await bench.driver.close()


def inline(image=None):
    buffer = io.BytesIO()
    (image or Image.new("RGB", (48, 32), "red")).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


async def test_delete_removes_results_and_inputs(bench):
    source = await bench.service.keep_input("init_image", inline())
    job = await bench.service.accept(job_request(init_image=source))
    job = await bench.service.wait(job.id, 5, cancel_if_left=False)
    await bench.files.put(job.request.output.keys[0], b"png", "image/png")
    await bench.service.delete(job.id, "open")
    assert await bench.service.read_file(job.request.output.keys[0]) is None
    assert await bench.files.get(source.stored_key) is None
    assert (await bench.service.fetch(job.id, "open")).state is JobState.SUCCESS


async def test_delete_cancels_an_open_job(bench):
    bench.graph.duration_s = 30
    job = await bench.service.accept(job_request(init_image=ImageSource(field="f", url="http://a")))
    await bench.service.delete(job.id, "open")
    assert (await bench.jobs.get(job.id)).state is JobState.CANCELLED


async def test_delete_of_another_keys_job_removes_nothing(bench):
    job = await bench.service.accept(job_request(key_id="key_a"))
    await bench.files.put(job.request.output.keys[0], b"png", "image/png")
    with pytest.raises(errors.JobNotFound):
        await bench.service.delete(job.id, "key_b")
    assert await bench.service.read_file(job.request.output.keys[0]) is not None


@pytest.mark.parametrize("crop", [False, True])
async def test_picture_is_published_by_the_graph_under_a_temporary_name(bench, crop):
    key = await bench.service.publish("image", inline(), "open", crop=crop)
    assert key.startswith("temp/")
    plan = OutputPlan(keys=(key,), temp=True)
    assert bench.graph.published == [("image", base64.b64decode(inline()), plan, crop)]


async def test_publish_fails_as_the_graph_does(bench):
    bench.graph.failures = [errors.InvalidImage("image", "no picture")]
    with pytest.raises(errors.InvalidImage, match="no picture"):
        await bench.service.publish("image", inline(), "open")


@pytest.mark.parametrize(
    "text",
    ["https://a.example/i.png", "A" * 7_500_000, "?"],
    ids=["link", "too-large", "no-base64"],
)
async def test_publish_of_what_is_no_inline_data_asks_nobody(bench, text):
    with pytest.raises(errors.InvalidImage, match="image"):
        await bench.service.publish("image", text, "open")
    assert bench.graph.published == []


@pytest.mark.parametrize("flags", [True, False])
async def test_nsfw_check_asks_the_graph(bench, flags):
    bench.graph.flags = flags
    assert await bench.service.is_nsfw("init_image", inline(), "open") is flags


async def test_pictures_count_as_calls_of_their_key():
    bench = Bench(limits={"requests_per_minute": 1})
    await bench.service.publish("image", inline(), "key_a")
    for call in (bench.service.publish, bench.service.is_nsfw):
        with pytest.raises(errors.RateLimited):
            await call("image", inline(), "key_a")
    with pytest.raises(errors.RateLimited):
        await bench.service.request_reload("m", "key_a")
    assert await bench.service.is_nsfw("image", inline(), "key_b") is False


async def test_open_service_counts_no_calls():
    bench = Bench(auth={"mode": "open"}, limits={"requests_per_minute": 1})
    for _ in range(3):
        await bench.service.is_nsfw("image", inline(), "open")


async def test_reload_is_noted_as_a_deed_of_the_key(bench, monkeypatch):
    noted = []

    async def request(model_id):
        noted.append((model_id, actor()))

    monkeypatch.setattr(bench.service._reloads, "request_limited", request)
    await bench.service.request_reload("m", "key_a")
    assert noted == [("m", "key:key_a")]


async def test_load_counts_open_jobs():
    bench = Bench(jobs={"max_driven": 2, "first_eta_s": 8})
    for _ in range(5):
        await bench.jobs.add(job_request(), max_open=9)
    load = await bench.service.load()
    assert (load.num_open, load.wait_s) == (5, 16.0)
