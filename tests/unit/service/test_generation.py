"""The use cases over in-memory stores and a fake graph."""

import asyncio
import base64
from pathlib import Path

import pytest

from serve_app import errors
from serve_app.config import AppConfig
from serve_app.jobs.driver import Driver
from serve_app.models import Catalogue, CatalogueView, ModelEntry
from serve_app.models.reload import Reloads
from serve_app.service.generation import GenerationService, Stores
from serve_app.testing.graph import FakeGraph
from serve_app.testing.jobs import MemoryJobStore, MemoryKeyStore
from serve_app.testing.models import MemoryModelStore
from serve_app.testing.storage import MemoryStore
from serve_app.types import ControlType, JobState, Kind, OutputPlan, PictureFormat
from serve_app.webhooks.protocol import DeliveryState
from tests.builders import job_request, webhook_body


class Bench:
    def __init__(self, graph=None, models=(), events=None, sections=(), **settings):
        self.config = AppConfig.model_validate(
            {
                "auth": {"mode": "keys"},
                "jobs": {"poll_s": 0.05, **settings},
                "events": events or {},
            }
            | dict(sections)
        )
        self.graph = graph or FakeGraph()
        self.jobs, self.files = MemoryJobStore(), MemoryStore()
        self.keys = MemoryKeyStore()
        self.told = []
        self.driver = Driver(self.jobs, self.graph, self.config.jobs, self.tell)
        self.models = MemoryModelStore()
        self.view = CatalogueView(Catalogue(models), self.models, Path())
        self.service = GenerationService(
            Stores(self.jobs, self.files, self.keys, self.jobs.outbox),
            self.view,
            self.driver,
            self.graph,
            Reloads(self.models, self.graph.notify_replicas, self.config.reload),
            self.config,
        )

    async def tell(self, job, outcome):
        self.told.append((job.id, getattr(outcome, "code", "")))
        return await webhook_body(job, outcome)


@pytest.fixture
async def bench():
    bench = Bench()
    bench.driver.start()
    yield bench
    await bench.driver.close()


async def test_wait_returns_the_finished_job(bench):
    job = await bench.service.accept(job_request())
    done = await bench.service.wait(job.id, 5, cancel_if_left=True)
    assert done.state is JobState.SUCCESS


async def test_places_of_jobs_accepted_one_after_the_other_take_one_look(bench, monkeypatch):
    looks = []
    waiting = bench.jobs.waiting

    async def look(model_id):
        looks.append(model_id)
        return await waiting(model_id)

    monkeypatch.setattr(bench.jobs, "waiting", look)
    bench.graph.duration_s = 30
    jobs = [await bench.service.accept(job_request()) for _ in range(3)]
    assert await bench.service.queue_place(jobs[0]) == 1
    jobs += [await bench.service.accept(job_request()) for _ in range(3)]
    assert [await bench.service.queue_place(job) for job in jobs] == [1, 2, 3, 4, 5, 6]
    assert looks == ["tiny"]


async def test_wait_returns_when_the_hold_is_over(bench):
    bench.graph.duration_s = 30
    job = await bench.service.accept(job_request())
    held = await bench.service.wait(job.id, 0.05, cancel_if_left=True)
    assert held.state is JobState.PROCESSING


async def test_names_are_reserved_for_the_form_that_is_asked_for(bench):
    form = PictureFormat.JPEG
    plan = bench.service.reserve_output(2, base64=False, temp=True, form=form, quality=37)
    assert (len(plan.keys), plan.temp, plan.base64) == (2, True, False)
    assert (plan.format, plan.quality) == (form, 37)
    assert all(key.startswith("temp/") and key.endswith(".jpeg") for key in plan.keys)
    plain = bench.service.reserve_output(1, base64=False, temp=False)
    assert (plain.format, plain.quality) == (PictureFormat.PNG, 100)
    assert plain.keys[0].startswith("generations/")


async def test_job_is_cancelled_although_its_client_leaves_twice(bench, monkeypatch):
    """The second time while the store is asked."""
    bench.graph.duration_s = 30
    job = await bench.service.accept(job_request())
    asked, go, cancel = asyncio.Event(), asyncio.Event(), bench.jobs.cancel

    async def cancel_slowly(*given):
        asked.set()
        await go.wait()
        return await cancel(*given)

    monkeypatch.setattr(bench.jobs, "cancel", cancel_slowly)
    waiting = asyncio.create_task(bench.service.wait(job.id, 5, cancel_if_left=True))
    await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.wait_for(asked.wait(), 5)
    waiting.cancel()
    await asyncio.wait([waiting])
    go.set()
    async with asyncio.timeout(5):
        while (await bench.jobs.get(job.id)).state is not JobState.CANCELLED:
            await asyncio.sleep(0.01)


async def test_wait_sees_a_job_that_another_process_drives(bench):
    job = await bench.jobs.add(job_request(), max_open=9)
    await bench.jobs.claim("elsewhere", 60, 1)
    waiting = asyncio.create_task(bench.service.wait(job.id, 5, cancel_if_left=True))
    await asyncio.sleep(0.01)
    await bench.jobs.cancel(job.id)
    assert (await waiting).state is JobState.CANCELLED


@pytest.mark.parametrize(
    ("cancel_if_left", "state"), [(True, JobState.CANCELLED), (False, JobState.PROCESSING)]
)
async def test_client_that_leaves_cancels_its_job_only_if_asked(bench, cancel_if_left, state):
    bench.graph.duration_s = 30
    job = await bench.service.accept(job_request())
    waiting = asyncio.create_task(bench.service.wait(job.id, 30, cancel_if_left=cancel_if_left))
    await asyncio.sleep(0.02)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (await bench.jobs.get(job.id)).state is state
    assert bool(bench.graph.at_work) is not cancel_if_left


async def test_fetch_shows_live_progress(bench):
    bench.graph.duration_s = 30
    job = await bench.service.accept(job_request())
    await asyncio.sleep(0.01)
    assert (await bench.service.fetch(job.id, "open")).progress == 0.5


@pytest.mark.parametrize("call", ["fetch", "cancel", "delete"])
async def test_job_of_another_key_is_not_found_like_one_that_does_not_exist(bench, call):
    bench.graph.duration_s = 30
    job = await bench.service.accept(job_request(key_id="key_a"))
    for job_id, key_id in ((job.id, "key_b"), (job.id + 1, "key_a")):
        with pytest.raises(errors.JobNotFound):
            await getattr(bench.service, call)(job_id, key_id)
    assert (await bench.jobs.get(job.id)).state is JobState.PROCESSING


async def test_submit_beyond_max_open_is_refused():
    bench = Bench(max_open=1)
    await bench.jobs.add(job_request(), max_open=1)
    with pytest.raises(errors.Overloaded):
        await bench.service.accept(job_request())


async def test_inline_picture_is_kept_as_a_file(bench):
    text = base64.b64encode(b"picture").decode()
    source = await bench.service.keep_input("init_image", text)
    assert await bench.files.get(source.stored_key) == b"picture"
    assert await bench.service.read_file(source.stored_key) is None  # inputs are never shown


async def test_url_is_kept_as_it_is(bench):
    source = await bench.service.keep_input("init_image", "https://example.com/a.png")
    assert (source.url, source.stored_key) == ("https://example.com/a.png", None)


async def test_identify_knows_its_keys_until_they_are_revoked(bench):
    key, secret = await bench.keys.create("team")
    assert await bench.service.identify(secret) == key.id
    await bench.keys.revoke(key.id)
    for wrong in (secret, None, "", "sd_live_unknown"):
        with pytest.raises(errors.InvalidKey):
            await bench.service.identify(wrong)


async def test_result_file_is_served_by_its_link(bench):
    plan = bench.service.reserve_output(2, base64=False, temp=True)
    await bench.files.put(plan.keys[1], b"png", "image/png")
    stored = await bench.service.read_file(plan.keys[1])
    assert (stored.data, stored.media_type) == (b"png", "image/png")
    url = await bench.service.output_url(plan.keys[1], "http://host/prefix/")
    assert url == f"http://host/prefix/files/{plan.keys[1]}"


async def test_temp_link_ends_and_the_other_does_not(bench):
    asked = []

    async def url(key, base_url, ttl_s=None):
        asked.append((key.partition("/")[0], ttl_s))
        return "https://bucket.example/signed"

    bench.files.url = url
    for temp in (True, False):
        plan = bench.service.reserve_output(1, base64=False, temp=temp)
        link = await bench.service.output_url(plan.keys[0], "http://host")
        assert link == "https://bucket.example/signed"
    assert asked == [("temp", bench.config.storage.temp_ttl_s), ("generations", None)]


@pytest.mark.parametrize("end", [DeliveryState.DELIVERED, DeliveryState.FAILED])
async def test_webhook_status_follows_the_message(bench, end):
    bench.graph.duration_s = 0.05
    asked = job_request(webhook="https://example.com/hook")
    job = await bench.service.accept(asked)
    assert await bench.service.webhook_status(job) == "pending"
    job = await bench.service.wait(job.id, 5, cancel_if_left=True)
    assert await bench.service.webhook_status(job) == "pending"
    (message,) = await bench.jobs.outbox.claim("sender", 60, 1)
    await bench.jobs.outbox.settle("sender", message.id, end)
    assert await bench.service.webhook_status(job) == end.value


@pytest.mark.parametrize("call", ["cancel", "delete"])
@pytest.mark.parametrize("is_driven", [True, False])
async def test_job_that_is_cancelled_tells_its_webhook_once(bench, call, is_driven):
    bench.graph.duration_s = 30
    asked = job_request(webhook="https://example.com/hook")
    if is_driven:
        job = await bench.service.accept(asked)
    else:
        job = await bench.jobs.add(asked, max_open=9)
    for _ in range(2):
        await getattr(bench.service, call)(job.id, "open")
    (message,) = await bench.jobs.outbox.claim("sender", 60, 9)
    assert (message.job_id, message.url) == (job.id, "https://example.com/hook")
    assert (await bench.jobs.get(job.id)).state is JobState.CANCELLED
    assert bench.told == [(job.id, "cancelled")]
    async with asyncio.timeout(5):
        while bench.graph.at_work:
            await asyncio.sleep(0.01)


async def test_deleted_job_leaves_neither_results_nor_hints(bench):
    plan = OutputPlan(keys=("generations/a.png",), hint_keys=("generations/h.png",))
    job = await bench.service.accept(job_request(output=plan))
    await bench.service.wait(job.id, 5, cancel_if_left=True)
    for key in plan.files:
        await bench.files.put(key, b"png", "image/png")
    await bench.service.delete(job.id, "open")
    assert [await bench.files.get(key) for key in plan.files] == [None, None]


async def test_job_that_ended_before_it_was_cancelled_tells_its_result_only(bench):
    job = await bench.service.accept(job_request(webhook="https://example.com/hook"))
    await bench.service.wait(job.id, 5, cancel_if_left=True)
    await bench.service.cancel(job.id, "open")
    assert len(await bench.jobs.outbox.claim("sender", 60, 9)) == 1
    assert bench.told == [(job.id, "")]


async def test_webhook_to_the_inside_is_refused_before_a_job_promises_one(bench):
    for url in ("http://127.0.0.1/hook", "https://example.com:22/hook"):
        with pytest.raises(errors.InvalidRequest) as caught:
            await bench.service.check_webhook(url)
        assert caught.value.field == "webhook"


async def test_webhook_status_without_a_webhook_is_empty(bench):
    job = await bench.service.accept(job_request())
    assert await bench.service.webhook_status(job) == ""


async def test_eta_holds_the_load_until_the_job_has_begun(bench):
    bench.graph.duration_s = 30
    job = await bench.service.accept(job_request())
    loaded = await bench.service.eta_s(job)
    bench.graph.load_left_s = 100
    assert await bench.service.eta_s(job) == pytest.approx(loaded + 100)
    begun = job.model_copy(update={"progress": 0.5})
    assert await bench.service.eta_s(begun) < loaded


async def test_eta_of_a_queued_job_counts_what_comes_before_it_and_that_of_a_begun_one_nothing(
    bench,
):
    bench.graph.duration_s = 30
    begun = await bench.service.accept(job_request())
    first = await bench.jobs.add(job_request(key_id="heavy"), max_open=999)
    alone = [await bench.service.eta_s(job) for job in (begun, first)]
    for _ in range(200):
        last = await bench.jobs.add(job_request(key_id="heavy"), max_open=999)
    light = await bench.jobs.add(job_request(key_id="light"), max_open=999)
    assert await bench.service.eta_s(begun) == alone[0]
    assert await bench.service.eta_s(first) == alone[1]
    assert await bench.service.eta_s(last) > 2 * alone[1]
    assert await bench.service.eta_s(light) < 1.5 * alone[1]  # its turn comes soon


async def test_client_that_leaves_while_its_job_is_accepted_frees_it(bench):
    bench.graph.duration_s = 30
    add, added = bench.jobs.add, []

    async def slow_add(*args, **kwargs):
        await asyncio.sleep(0.05)
        added.append(await add(*args, **kwargs))
        return added[0]

    bench.jobs.add = slow_add
    submitting = asyncio.create_task(bench.service.accept(job_request()))
    await asyncio.sleep(0.01)
    submitting.cancel()
    await asyncio.wait([submitting])
    async with asyncio.timeout(5):
        while not added or not (job := await bench.jobs.get(added[0].id)).state.is_final:
            await asyncio.sleep(0.01)
    assert job.state is JobState.CANCELLED


async def test_service_says_what_its_settings_can_be_asked_for():
    asked = {"engine": {"painter": "fake"}}
    nothing = Bench(sections=asked).service
    assert (nothing.has_checker, nothing.can_translate, nothing.hint_models) == (
        False,
        False,
        set(),
    )
    asked |= {"safety": {"checkpoint": "/safety"}, "hints": {"depth": "/depth"}}
    asked["engine"] |= {"translator": "/translator"}
    service = Bench(sections=asked).service
    assert (service.has_checker, service.can_translate) == (True, True)
    assert service.hint_models == {ControlType.DEPTH}


def model(model_id, placement="own"):
    return ModelEntry(id=model_id, source="w", kinds=(Kind.TEXT2IMG,), placement=placement)


@pytest.mark.parametrize(("away", "is_ready"), [("own", True), ("tail", False), ("filed", False)])
async def test_ready_needs_all_models_but_those_in_applications_of_their_own(away, is_ready):
    bench = Bench(models=[model("filed")])
    for added in (model("own"), model("tail", "pool")):
        await bench.models.put(added)
    await bench.view.refresh()
    bench.graph.away.add(away)
    found = await bench.service.readiness()
    assert found.is_ready is is_ready
    assert found.models == {model_id: model_id != away for model_id in ("filed", "own", "tail")}
