"""Run-time entries by HTTP, for whoever has the admin key."""

import json
import re
import time

import httpx2
import pytest
from pydantic import SecretStr

from serve_app.api import create_api
from serve_app.api.routes.admin import Accounts, Admin
from serve_app.api.routes.overview import Watch
from serve_app.config import CatalogueConfig, HttpConfig, JobsConfig, ReloadConfig
from serve_app.jobs.rate import RateLimiter
from serve_app.models import Catalogue, ModelEntry
from serve_app.models.protocol import ReplicaPhase, ReplicaReport
from serve_app.models.registry import Registry, judge_files
from serve_app.models.reload import Reloads
from serve_app.testing.audit import MemoryAuditLog
from serve_app.testing.graph import FakeGraph
from serve_app.testing.keys import MemoryKeyStore
from serve_app.testing.models import MemoryModelStore
from serve_app.testing.service import FakeService
from serve_app.testing.usage import MemoryUsageStore
from serve_app.types import Job, JobFailure, JobState, Kind
from tests import community_files
from tests.builders import job_request, spec

KEY = "an-operators-key-of-some-length"
ENTRY = {"id": "tail", "source": "weights", "kinds": ["text2img"], "placement": "pool"}


HOT = ModelEntry(id="hot", source={"hub": "acme/hot"}, kinds=tuple(Kind))
LOCAL = ModelEntry(id="local", source="weights", kinds=tuple(Kind))


class Parts:
    """What the app is made of; `renew` makes all of it as new, so that one app does for all."""

    def __init__(self, folder):
        self.store = MemoryModelStore()
        self.reloads = Reloads(*self._of_reloads())
        self.registry = Registry(*self._of_registry(), **self._rules(folder))
        self.failures = RateLimiter(3)

    def renew(self, folder):
        self.store.__init__()
        self.reloads.__init__(*self._of_reloads())
        self.registry.__init__(*self._of_registry(), **self._rules(folder))
        self.failures.__init__(3)

    def _of_reloads(self):
        return self.store, FakeGraph().notify_replicas, ReloadConfig(hold_s=0)

    def _of_registry(self):
        return Catalogue([HOT, LOCAL]), self.store

    def _rules(self, folder):
        return {"has_pool": True, "judge": judge_files(CatalogueConfig(), folder)}


async def last_failed(limit):
    """One job, which says nothing of what was asked for but the model."""
    failure = JobFailure(code="generation_failed", message="The generation failed.")
    request = job_request(spec=spec(model_id="hot", prompt="a secret"))
    job = Job(id=7, state=JobState.FAILED, request=request, created_at=1.0, finished_at=2.0)
    return [job.model_copy(update={"failure": failure})][:limit]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    parts = Parts(tmp_path_factory.mktemp("admin"))
    accounts = Accounts(MemoryKeyStore(), MemoryUsageStore(time.time), MemoryAuditLog())
    admin = Admin(parts.registry, parts.reloads, SecretStr(KEY), parts.failures, accounts)
    watch = Watch(list, last_failed)
    return parts, create_api(
        FakeService([HOT]), HttpConfig(), JobsConfig(), operator=admin, watch=watch
    )


@pytest.fixture
def store(made, tmp_path):
    made[0].renew(tmp_path)
    return made[0].store


@pytest.fixture
async def http(store, made):
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=made[1]),
        base_url="http://testserver",
        headers={"authorization": f"Bearer {KEY}"},
        trust_env=False,
    ) as client:
        yield client


async def test_entry_is_added_listed_and_removed(http, store):
    added = await http.post("/admin/models", json=ENTRY)
    assert added.status_code == 201
    row = {"id": "tail", "type": "model", "added_at_run_time": True, "entry": ENTRY}
    assert added.json() == row
    listed = (await http.get("/admin/models")).json()["models"]
    assert [item["id"] for item in listed] == ["hot", "local", "tail"]
    assert listed[2] == row
    assert (await http.delete("/admin/models/tail")).status_code == 204
    assert await store.entries() == []
    assert (await http.delete("/admin/models/tail")).status_code == 404


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", f"Basic {KEY}", KEY, f"Bearer {KEY[:-1]}", f"Bearer {KEY}x"],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/admin/models"),
        ("POST", "/admin/models"),
        ("DELETE", "/admin/models/tail"),
        ("GET", "/admin/models/hot/replicas"),
        ("POST", "/admin/models/hot/reload"),
        ("GET", "/admin/keys"),
        ("POST", "/admin/keys"),
        ("GET", "/admin/keys/x"),
        ("PATCH", "/admin/keys/x"),
        ("POST", "/admin/keys/x/rotate"),
        ("DELETE", "/admin/keys/x"),
        ("GET", "/admin/usage"),
        ("GET", "/admin/audit"),
    ],
)
async def test_nobody_else_gets_in(http, store, method, path, header):
    answer = await http.request(method, path, headers={"authorization": header}, json=ENTRY)
    assert (answer.status_code, answer.json()["reason"]) == (401, "invalid_key")
    assert await store.version() == 0


async def test_guesses_of_one_address_are_limited(http):
    wrong = {"authorization": "Bearer a-wrong-key-of-some-length"}
    codes = [(await http.get("/admin/models", headers=wrong)).status_code for _ in range(4)]
    assert codes == [401, 401, 401, 429]
    answer = await http.get("/admin/models")  # the right key is not told from a lucky guess
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0


async def test_right_key_does_not_count_as_a_guess(http):
    codes = {(await http.get("/admin/models")).status_code for _ in range(5)}
    assert codes == {200}


async def test_without_a_key_there_are_no_such_paths(api):
    for method, path in (("GET", "/admin/models"), ("DELETE", "/admin/models/x")):
        answer = await api.http.request(method, path, headers={"authorization": "Bearer None"})
        assert answer.status_code == 404


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"id": "../../etc/passwd"}, "id"),
        ({"id": "a/b"}, "id"),
        ({"id": ""}, "id"),
        ({"id": "x" * 10_000}, "id"),
        ({"id": None}, "id"),
        ({"id": "hot"}, "id"),
        ({"source": None}, "source"),
        ({"source": {"hub": "../x"}}, "source.hub"),
        ({"source": {"hub": "a/b", "files": []}}, "source.files"),
        ({"source": 7}, "source"),
        ({"source": ["weights"]}, "source"),
        ({"source": "wei\0ghts"}, "source"),
        ({"source": "\ud800"}, "source"),
        ({"source": "x" * 5000}, "source"),
        ({"base_config": "\0"}, "base_config"),
        ({"name": "x" * 5000}, "name"),
        ({"kinds": ["text2img"] * 1000}, "kinds"),
        ({"kinds": ["nonsense"]}, "kinds.0"),
        ({"serve": {"min_replicas": 5}}, "serve"),
        ({"defaults": {"steps": 99}}, "defaults.steps"),
        ({f"x{number}": 1 for number in range(4_000)}, "x0"),
        ({"sha256": "nonsense"}, "sha256"),
        ({"sha256": {"../x.safetensors": "0" * 64}}, "sha256"),
        ({"base_config": "weights"}, "entry"),
        ({"placement": "elsewhere"}, "placement"),
        ({"surprise": 1}, "surprise"),
        ({"type": "lora"}, "kinds"),
        ({"type": "checkpoint"}, "type"),
    ],
    ids=lambda value: json.dumps(value)[:40],
)
async def test_bad_entry_is_refused_by_its_field(http, store, changes, field):
    answer = await http.post("/admin/models", content=json.dumps(ENTRY | changes))
    assert answer.status_code == 400
    assert field in answer.json()["message"]
    assert len(answer.content) < 2000
    assert not re.search(
        r"pydantic|HubSource|pathlib|Input should|\[hub|\[hash|instance of", answer.text
    )
    assert await store.version() == 0


async def test_entry_that_is_not_what_it_says_is_refused_by_its_source(http, store, tmp_path):
    community_files.write_named(tmp_path, "vae-diffusers")
    entry = {"id": "ink", "type": "lora", "source": "vae-diffusers.safetensors"}
    answer = await http.post("/admin/models", json=entry)
    assert answer.status_code == 400
    assert "ink: found a VAE for Stable Diffusion 1" in answer.json()["message"]
    assert "expected a LoRA" in answer.json()["message"]
    assert await store.version() == 0
    assert (await http.post("/admin/models", json=entry | {"type": "vae"})).status_code == 201


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"id: tail", b"{" * 100_000, b"\xff"])
async def test_body_that_is_no_entry_is_refused(http, content):
    answer = await http.post("/admin/models", content=content)
    assert answer.status_code == 400


@pytest.mark.parametrize("entry_id", ["nope", "hot", "a%2Fb", "..%2F..%2Fetc", "%00", "x" * 10_000])
async def test_remove_of_what_was_not_added_is_refused(http, entry_id):
    answer = await http.delete(f"/admin/models/{entry_id}")
    assert answer.status_code in (400, 404)


async def test_operator_sees_why_a_replica_refused_the_weights(http, store):
    answer = await http.post("/admin/models/hot/reload", json={"revision": "v2"})
    assert answer.json()["status"] == "loading"
    said = ReplicaReport(
        model_id="hot",
        replica_id="a",
        weights_version=1,
        phase=ReplicaPhase.FAILED,
        serving=0,
        reason="unet is truncated",
    )
    await store.report(said)
    state = (await http.get("/admin/models/hot/replicas")).json()
    assert (state["generation"], state["revision"], state["status"]) == (1, "v2", "failed")
    row = state["replicas"][0]
    assert (row["generation"], row["reason"]) == (1, "unet is truncated")
    assert "weights_version" not in row


@pytest.mark.parametrize("revision", ["../x", "", 7, "a" * 200, "a\0b"])
async def test_revision_that_is_none_is_refused(http, store, revision):
    answer = await http.post("/admin/models/hot/reload", json={"revision": revision})
    assert answer.status_code == 400
    assert (await store.desired(["hot"]))["hot"].weights_version == 0


async def test_revision_of_local_weights_is_refused(http, store):
    answer = await http.post("/admin/models/local/reload", json={"revision": "v2"})
    assert answer.status_code == 400
    assert "do not come from a hub" in answer.json()["message"]
    assert (await store.desired(["local"]))["local"].weights_version == 0
    assert (await http.post("/admin/models/local/reload", json={})).status_code == 200


@pytest.mark.parametrize(("method", "call"), [("GET", "replicas"), ("POST", "reload")])
async def test_operators_calls_about_an_unknown_model_say_so(http, method, call):
    answer = await http.request(method, f"/admin/models/nope/{call}", json={})
    assert answer.status_code == 404


async def test_overview_tells_what_top_shows_and_what_failed_last(http):
    seen = (await http.get("/admin/overview")).json()
    assert (seen["status"], seen["models"], seen["silent_nodes"]) == ("unknown", [], 0)
    assert seen["failures"] == [
        {
            "id": 7,
            "finished_at": 2.0,
            "model_id": "hot",
            "reason": "generation_failed",
            "message": "The generation failed.",
        }
    ]


@pytest.mark.parametrize("key", [None, "another-key-of-some-length"])
async def test_overview_is_for_the_operator_only(http, key):
    headers = {"authorization": f"Bearer {key}"}
    answer = await http.get("/admin/overview", headers=headers)
    assert (answer.status_code, answer.json()["reason"]) == (401, "invalid_key")
