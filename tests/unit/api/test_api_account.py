"""Keys, usage and the log of deeds by HTTP, for whoever has the admin key."""

import json
import time

import httpx2
import pytest
from pydantic import SecretStr

from serve_app.api import create_api
from serve_app.api.routes import account
from serve_app.api.routes.admin import Accounts, Admin
from serve_app.config import HttpConfig, JobsConfig, ReloadConfig
from serve_app.jobs.protocol import Deed
from serve_app.jobs.rate import RateLimiter
from serve_app.jobs.rules import KeyRules
from serve_app.models import Catalogue
from serve_app.models.registry import Registry
from serve_app.models.reload import Reloads
from serve_app.testing.audit import MemoryAuditLog
from serve_app.testing.graph import FakeGraph
from serve_app.testing.jobs import MemoryJobStore
from serve_app.testing.keys import MemoryKeyStore
from serve_app.testing.models import MemoryModelStore
from serve_app.testing.service import FakeService
from serve_app.types import Cost, JobResult
from tests.builders import job_request

KEY = "an-operators-key-of-some-length"
COST = Cost(row_steps=100, device_s=2.5, stored_bytes=4000)
RESULT = JobResult(keys=("a",), nsfw=(False,), generation_time_s=1, cost=COST)


class Bench:
    def __init__(self):
        self.keys, self.audit = MemoryKeyStore(), MemoryAuditLog()
        self.jobs = MemoryJobStore(time.time, self.keys)
        store = MemoryModelStore()
        reloads = Reloads(store, FakeGraph().notify_replicas, ReloadConfig(hold_s=0))
        registry = Registry(Catalogue([]), store, has_pool=True)
        accounts = Accounts(self.keys, self.jobs.costs, self.audit)
        admin = Admin(registry, reloads, SecretStr(KEY), RateLimiter(3), accounts)
        self.app = create_api(FakeService([]), HttpConfig(), JobsConfig(), operator=admin)


@pytest.fixture
def bench():
    return Bench()


@pytest.fixture
async def http(bench):
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=bench.app),
        base_url="http://testserver",
        headers={"authorization": f"Bearer {KEY}"},
        trust_env=False,
    ) as client:
        yield client


async def test_key_is_made_changed_rotated_and_revoked(http, bench):
    body = {"name": "shop", "rules": {"max_open": 3, "features": ["inpaint"]}, "lifetime_s": 60}
    made = await http.post("/admin/keys", json=body)
    assert made.status_code == 201
    key_id, secret = made.json()["id"], made.json()["secret"]
    assert await bench.keys.verify(secret) == key_id
    path = f"/admin/keys/{key_id}"
    shown = (await http.get(path)).json()
    assert (shown["rules"]["max_open"], shown["rules"]["features"]) == (3, ["inpaint"])
    assert shown["expires_at"] > time.time()
    stake = {"weight": 0.5, "max_priority": 1}
    assert (await http.patch(path, json={"rules": stake})).status_code == 200
    assert (await bench.keys.find(key_id)).rules == KeyRules(weight=0.5, max_priority=1)
    changed = await http.patch(path, json={"rules": {"monthly_pictures": 9}})
    assert changed.json()["rules"]["max_open"] is None
    assert changed.json()["expires_at"] == shown["expires_at"]
    assert (await http.patch(path, json={"lifetime_s": 0})).json()["expires_at"] is None
    assert (await bench.keys.find(key_id)).rules == KeyRules(monthly_pictures=9)
    rotated = (await http.post(f"{path}/rotate", json={"overlap_s": 0})).json()["secret"]
    assert [await bench.keys.verify(one) for one in (secret, rotated)] == [None, key_id]
    assert secret not in (await http.get("/admin/keys")).text
    signed = (await http.post(f"{path}/webhook_secret")).json()["webhook_secret"]
    assert bench.keys.webhook_secrets == {key_id: signed}
    assert signed not in (await http.get(path)).text
    assert (await http.delete(f"{path}/webhook_secret")).status_code == 204
    assert bench.keys.webhook_secrets == {}
    assert (await http.delete(path)).status_code == 204
    assert await bench.keys.verify(rotated) is None


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"name": "x", "rules": {"max_open": -1}}, "rules.max_open"),
        ({"name": "x", "rules": {"max_opn": 1}}, "max_opn"),
        ({"name": "x", "rules": {"features": ["dancing"]}}, "rules.features"),
        ({"name": "x", "rules": {"weight": 0}}, "rules.weight"),
        ({"name": "x", "rules": {"max_priority": 5}}, "rules.max_priority"),
        ({"name": "x", "lifetime_s": -1}, "lifetime_s"),
        ({"name": "x", "id": "mine"}, "id"),
    ],
    ids=[
        "none",
        "empty",
        "nul",
        "negative",
        "unknown",
        "feature",
        "weight",
        "priority",
        "life",
        "id",
    ],
)
async def test_bad_key_is_refused_by_its_field(http, bench, body, field):
    answer = await http.post("/admin/keys", json=body)
    assert answer.status_code == 400
    assert field in answer.json()["message"]
    assert await bench.keys.list_keys() == []


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("PATCH", ""), ("POST", "/rotate"), ("DELETE", "")],
    ids=["find", "change", "rotate", "revoke"],
)
async def test_key_that_does_not_exist(http, method, path):
    answer = await http.request(method, f"/admin/keys/key_nothing{path}", json={})
    assert (answer.status_code, answer.json()["reason"]) == (400, "invalid_request")
    assert "No active key has this id" in answer.json()["message"]


async def test_usage_of_a_month_as_json_and_csv(http, bench):
    job = await bench.jobs.add(job_request(key_id="key_a"), 10)
    await bench.jobs.claim("a", 10, 5)
    await bench.jobs.succeed("a", job.id, RESULT)
    month = await bench.jobs.costs.this_month()
    told = (await http.get("/admin/usage")).json()
    assert told["month"] == month
    (row,) = told["usage"]
    assert (row["key_id"], row["pictures"], row["row_steps"]) == ("key_a", 1, 100)
    text = (await http.get("/admin/usage", params={"month": month, "format": "csv"})).text
    assert text.splitlines()[1].endswith(",key_a,tiny,1,0,0,1,100,2.5,4000")
    assert (await http.get("/admin/usage?month=1999-12")).json()["usage"] == []
    assert (await http.get("/admin/usage?month=2026-13")).status_code == 400


async def test_log_of_deeds(http, bench):
    bench.audit.known = [
        Deed(at=2.0, actor="cli:me", action="key.revoke", subject="b"),
        Deed(at=1.0, actor="cli:me", action="key.create", subject="a", detail={"name": "x"}),
    ]
    assert [deed["subject"] for deed in (await http.get("/admin/audit")).json()["audit"]] == [
        *("b", "a")
    ]
    (one,) = (await http.get("/admin/audit?subject=a&limit=5")).json()["audit"]
    assert one["detail"] == {"name": "x"}
    for limit in ("0", "x", "10001", "-1", "٣"):
        assert (await http.get("/admin/audit", params={"limit": limit})).status_code == 400


BIG = 10**40


@pytest.mark.parametrize(
    "body",
    [
        {"rules": {"requests_per_minute": BIG}},
        {"rules": {"max_open": BIG}},
        {"rules": {"monthly_pictures": BIG}},
        {"rules": {"models": ["\0"]}},
        {"rules": {"models": ["\ud800"]}},
        {"lifetime_s": 1e308},
    ],
    ids=["rate", "open", "pictures", "nul", "surrogate", "lifetime"],
)
async def test_what_could_not_be_shown_again_makes_no_key(http, bench, body):
    refused = await http.post("/admin/keys", content=json.dumps({"name": "a", **body}).encode())
    assert refused.status_code == 400, refused.text
    key, _ = await bench.keys.create("b")
    changed = await http.patch(f"/admin/keys/{key.id}", content=json.dumps(body).encode())
    assert changed.status_code == 400, changed.text
    assert [row["name"] for row in (await http.get("/admin/keys")).json()["keys"]] == ["b"]


@pytest.mark.parametrize("limit", ["9" * 5000, "0", "-1", "10001", "1e3", "\u00b2"])
async def test_limit_of_the_audit_log_is_a_number_within_bounds(http, limit):
    assert (await http.get("/admin/audit", params={"limit": limit})).status_code == 400


async def pages(http, path, name, limit):
    """Read all pages, in order."""
    found, after = [], ""
    while after is not None:
        answer = (await http.get(f"{path}?limit={limit}{after and '&after=' + after}")).json()
        assert len(answer[name]) <= limit
        found.append(answer[name])
        after = answer["next"]
    return found


async def test_keys_come_in_pages(http, bench):
    made = [(await bench.keys.create(f"key {number}"))[0].id for number in range(5)]
    found = await pages(http, "/admin/keys", "keys", 2)
    assert [[row["id"] for row in page] for page in found] == [made[:2], made[2:4], made[4:]]
    assert (await http.get("/admin/keys?limit=0")).status_code == 400
    assert (await http.get("/admin/keys?limit=10001")).status_code == 400


async def test_usage_comes_in_pages_and_csv_as_a_whole(http, bench, monkeypatch):
    monkeypatch.setattr(account, "_ROWS", 2)
    for number in range(5):
        job = await bench.jobs.add(job_request(key_id=f"key_{number}"), 10)
        await bench.jobs.claim("a", 10, 5)
        await bench.jobs.succeed("a", job.id, RESULT)
    names = [f"key_{number}" for number in range(5)]
    found = await pages(http, "/admin/usage", "usage", 2)
    assert [[row["key_id"] for row in page] for page in found] == [names[:2], names[2:4], names[4:]]
    rows = (await http.get("/admin/usage?format=csv")).text.splitlines()
    assert [row.split(",")[1] for row in rows] == ["key_id", *names]
    assert (await http.get("/admin/usage?after=x")).status_code == 400


async def test_storage_prefix_of_a_key_by_http(http, bench):
    body = {"name": "acme", "rules": {"storage_prefix": "customers/acme"}}
    made = await http.post("/admin/keys", json=body)
    assert made.json()["rules"]["storage_prefix"] == "customers/acme"
    body["rules"]["storage_prefix"] = "../x"
    refused = await http.post("/admin/keys", json=body)
    assert refused.status_code == 400
    assert "rules.storage_prefix" in refused.json()["message"]
