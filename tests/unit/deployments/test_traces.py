"""One trace from the client's call to its webhook, through every stage, each as in its process."""

import asyncio
import base64
from pathlib import Path
from types import SimpleNamespace

import httpx2
import pytest
from ray import serve

from deployments.clients import GraphClient
from deployments.generator import Generator
from deployments.preprocess import Preprocess
from deployments.safety import Safety
from deployments.stages import Stages
from deployments.upload import Upload
from serve_app.api import create_api
from serve_app.api.replies.webhook import WebhookWriter
from serve_app.config import AppConfig
from serve_app.database import open_job_store
from serve_app.database.keys import SqlKeyStore
from serve_app.database.outbox import SqlOutbox
from serve_app.jobs.driver import Driver
from serve_app.models import Catalogue, CatalogueView, ModelEntry
from serve_app.models.reload import Reloads
from serve_app.service.generation import GenerationService, Stores
from serve_app.storage import open_store
from serve_app.storage.link import FileLinks
from serve_app.telemetry import tracing
from serve_app.testing.models import MemoryModelStore
from serve_app.testing.safety import FakeChecker
from serve_app.testing.webhooks import FakePoster
from serve_app.types import Kind
from serve_app.webhooks.delivery import Sender
from serve_app.webhooks.signing import Signer
from tests.local_stages import LocalHandle
from tests.spans import CALLER, OTHER, spans

__all__ = ["spans"]

EXAMPLE = Path(__file__).parents[3] / "examples" / "inpaint"
ENTRY = ModelEntry(id="tiny", source="no", kinds=tuple(Kind), native_size_px=64)
PATH = "/api/v4/dreambooth/inpaint"
STAGES = {
    "Preprocess.prepare": {},
    "Generator.paint": {},
    "Safety.check": {},
    "Upload.store": {},
}


class Quiet(Generator):
    """Closed by the fixture; Python would not await the destructor."""

    def __del__(self):
        pass


class Installation:
    """Ingress, stages and sender over one database, and a client."""

    def __init__(self, jobs, graph, config, stages):
        self.graph, self.stages, self.config, self.jobs = graph, stages, config, jobs
        files = open_store(config.storage, config.data_dir)
        writer = WebhookWriter(FileLinks(files, config.storage).make)
        self.driver = Driver(jobs, graph, config.jobs, writer.write)
        outbox, models = SqlOutbox(jobs.database), MemoryModelStore()
        self.service = GenerationService(
            Stores(jobs, files, SqlKeyStore(jobs.database), outbox),
            CatalogueView(Catalogue([ENTRY]), models, Path()),
            self.driver,
            graph,
            Reloads(models, graph.notify_replicas, config.reload),
            config,
        )
        self.poster = FakePoster()
        self.sender = Sender(outbox, self.poster, Signer([]))
        app = create_api(self.service, config.http, config.jobs)
        self.http = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=app), base_url="http://testserver", trust_env=False
        )

    async def inpaint(self, caller=CALLER, **fields):
        picture, mask = (
            base64.b64encode((EXAMPLE / f"{name}.png").read_bytes()).decode()
            for name in ("init", "mask")
        )
        body = {"model_id": "tiny", "prompt": "a cat", "width": 64, "height": 64, "steps": 4}
        body |= {"init_image": picture, "mask_image": mask}
        headers = {"traceparent": caller} if caller else {}
        return (await self.http.post(PATH, json=body | fields, headers=headers)).json()


@pytest.fixture
async def installation(tmp_path, monkeypatch):
    replica = SimpleNamespace(replica_id=SimpleNamespace(unique_id="replica"))
    monkeypatch.setattr(serve, "get_replica_context", lambda: replica)
    config = AppConfig.model_validate(
        {
            "root_dir": tmp_path,
            "auth": {"mode": "open"},
            "engine": {"painter": "fake"},
            "images": {"decode_workers": 1},
            "webhooks": {"allowed_hosts": ["localhost"]},
        }
    )
    (tmp_path / "var").mkdir()
    jobs = await open_job_store(config.database)
    generator = Quiet.__new__(Quiet)
    await generator.__init__(ENTRY, Catalogue([ENTRY]), config)
    preprocess = Preprocess(config.images, config.storage, config.data_dir, config.logging)
    safety = Safety(config.safety, config.logging)
    upload = Upload(config.storage, config.data_dir, config.logging)
    safety._checker = FakeChecker(lambda _: False)
    stages = {"preprocess": preprocess, "generator": generator, "safety": safety, "upload": upload}
    made = Installation(jobs, graph_of(stages), config, stages)
    made.driver.start()
    yield made
    await made.http.aclose()
    await made.driver.close()
    await preprocess.isolation.aclose()
    await Generator.__del__(generator)
    await jobs.close()


def graph_of(stages):
    return GraphClient(
        Stages(
            LocalHandle(stages["preprocess"]),
            {"tiny": LocalHandle(stages["generator"])},
            None,
            LocalHandle(stages["safety"]),
            LocalHandle(stages["upload"]),
        )
    )


async def test_an_inpaint_is_one_tree_under_the_span_of_its_caller(installation, spans):
    reply = await installation.inpaint(
        safety_checker="yes", webhook="http://localhost/hook", track_id="x"
    )
    assert reply["status"] == "success", reply
    assert await installation.sender.deliver_due() == 1
    assert spans.under(CALLER) == {
        f"POST {PATH}": {
            "accept": {},
            "job": STAGES,
            "settle": {},
            "webhook": {},
        }
    }
    (post,) = spans.named("webhook")
    (sent,) = installation.poster.sent
    assert sent.headers["traceparent"].split("-")[1:3] == [
        f"{post.context.trace_id:032x}",
        f"{post.context.span_id:016x}",
    ]


async def test_spans_name_call_job_and_model(installation, spans):
    reply = await installation.inpaint()
    for name in ("job", *STAGES):
        (span,) = spans.named(name)
        assert span.attributes["dreamserve.job_id"] == reply["id"]
        assert span.attributes["dreamserve.model_id"] == "tiny"
    (call,), (accept,) = spans.named(f"POST {PATH}"), spans.named("accept")
    assert accept.attributes["dreamserve.job_id"] == reply["id"]
    assert call.attributes["http.response.status_code"] == 200
    assert call.kind.name == "SERVER"
    calls = {span.attributes["dreamserve.call_id"] for span in spans.all()}
    assert len(calls) == 1


async def test_traces_of_two_callers_at_once_are_not_mixed(installation, spans):
    ours, theirs = await asyncio.gather(
        installation.inpaint(CALLER), installation.inpaint(OTHER, seed=3)
    )
    for caller, reply in ((CALLER, ours), (OTHER, theirs)):
        assert spans.under(caller) == {f"POST {PATH}": {"accept": {}, "job": STAGES, "settle": {}}}
        trace = int(caller.split("-")[1], 16)
        found = [span for span in spans.all() if span.context.trace_id == trace]
        jobs = {span.attributes.get("dreamserve.job_id") for span in found}
        assert jobs == {reply["id"], None}


@pytest.mark.slow
@pytest.mark.parametrize("caller", ["", "00-0-0-00", CALLER.upper(), f"{CALLER}\nx"])
async def test_call_without_a_good_parent_begins_a_trace_of_its_own(installation, spans, caller):
    await installation.inpaint(caller.replace("\n", " "))
    (call,) = spans.named(f"POST {PATH}")
    assert call.parent is None
    (job,) = spans.named("job")
    assert job.parent.span_id == call.context.span_id


async def test_probes_of_load_balancers_have_no_spans(installation, spans):
    answer = await installation.http.get("/health/live", headers={"traceparent": CALLER})
    assert answer.status_code == 200
    assert spans.all() == []


async def test_caller_that_does_not_want_a_trace_gets_none(installation, spans):
    await installation.inpaint(CALLER.removesuffix("01") + "00")
    assert spans.all() == []


@pytest.mark.slow
async def test_error_of_a_stage_is_its_status_and_those_of_what_is_around_it(installation, spans):
    reply = await installation.inpaint(init_image=base64.b64encode(b"no picture").decode())
    assert reply["status"] == "error"
    failed = {
        span.name: span.attributes["error.type"]
        for span in spans.all()
        if span.status.status_code.name == "ERROR"
    }
    assert failed == {"Preprocess.prepare": "invalid_image", "job": "invalid_image"}
    assert spans.named("Generator.paint") == []


@pytest.mark.slow
async def test_takeover_goes_on_with_the_trace(installation, spans):
    """The driver that accepted the job dies; another one, which knows only the row, runs it."""
    started = asyncio.Event()

    async def hang(_job):
        started.set()
        await asyncio.sleep(60)

    installation.driver._graph = SimpleNamespace(run=hang)
    call = asyncio.create_task(installation.inpaint(webhook="http://localhost/hook"))
    await started.wait()
    await installation.driver.close()  # gives its jobs back
    config = installation.config.jobs
    other = Driver(installation.jobs, installation.graph, config, installation.driver._webhook_body)
    other.start()
    try:
        await call
    finally:
        await other.close()
    (tree,) = spans.under(CALLER).values()
    assert tree["job"] == STAGES
    first, second = spans.named("job")
    assert first.attributes["error.type"] == "cancelled"
    assert first.parent == second.parent
    assert [one.attributes["dreamserve.attempt"] for one in (first, second)] == [1, 2]


async def test_nothing_is_kept_or_sent_of_a_trace_while_there_are_none(installation):
    reply = await installation.inpaint(webhook="http://localhost/hook")
    assert (await installation.jobs.get(reply["id"])).request.traceparent == ""
    await installation.sender.deliver_due()
    (sent,) = installation.poster.sent
    assert "traceparent" not in sent.headers
    assert tracing.current() == ""
