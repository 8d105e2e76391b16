"""Canaries of models by HTTP, for whoever has the admin key."""

import pytest

from serve_app.models import ModelEntry
from serve_app.models.revision import canary_id
from serve_app.types import JobFailure
from tests.builders import job_request, spec
from tests.unit.api.test_api_admin import ENTRY, http, made, store

__all__ = ["http", "made", "store"]  # fixtures


PATH = "/admin/models/tail/canary"
NEW = {**ENTRY, "source": "other"}


@pytest.fixture
async def tail(store):
    await store.put(ModelEntry.model_validate(ENTRY))
    return store


async def test_canary_is_begun_shown_and_shared(http, tail):
    assert (await http.get(PATH)).status_code == 400
    begun = await http.put(PATH, json={"share": 10, "entry": NEW})
    assert (begun.status_code, begun.headers["content-type"]) == (200, "application/json")
    empty = {"succeeded": 0, "failed": 0, "cancelled": 0, "run_s": None, "error_rate": None}
    shown = begun.json()
    assert shown.pop("since") > 0
    assert shown == {
        "model_id": "tail",
        "share": 10.0,
        "entry": NEW,
        "model": empty,
        "canary": empty,
    }
    assert (await http.put(PATH, json={"share": 25.5})).json()["share"] == 25.5
    assert (await http.get(PATH)).json()["share"] == 25.5
    listed = (await http.get("/admin/models")).json()["models"]
    assert [row["id"] for row in listed] == ["hot", "local", "tail"]


async def test_calls_of_operators_are_together_in_the_schema(http):
    paths = (await http.get("/openapi.json")).json()["paths"]
    tags = {
        path: call["tags"] for path, calls in paths.items() if path.startswith("/admin/")
        for call in calls.values()
    }  # fmt: skip
    assert PATH.replace("tail", "{model_id}") in tags
    assert all(own == ["Administration"] for own in tags.values())


async def test_both_revisions_are_compared(http, tail):
    await http.put(PATH, json={"share": 10, "entry": NEW})
    jobs = tail._jobs
    for model_id in ("tail", canary_id("tail")):
        job = await jobs.add(job_request(spec=spec(model_id=model_id)), 10)
        await jobs.claim("a", 10.0, 1)
        failure = JobFailure(code="generation_failed", message="no")
        await jobs.fail("a", job.id, failure)
    shown = (await http.get(PATH)).json()
    assert (shown["model"]["failed"], shown["canary"]["failed"]) == (1, 1)
    assert shown["canary"]["error_rate"] == 1.0


async def test_canary_is_promoted(http, tail):
    await http.put(PATH, json={"share": 10, "entry": NEW})
    assert (await http.post(f"{PATH}/promote")).status_code == 204
    assert [str(entry.source) for entry in await tail.entries()] == ["other"]
    assert (await http.post(f"{PATH}/promote")).status_code == 400


async def test_canary_is_rolled_back(http, tail):
    await http.put(PATH, json={"share": 10, "entry": NEW})
    assert (await http.delete(PATH)).status_code == 204
    assert [str(entry.source) for entry in await tail.entries()] == ["weights"]
    assert (await http.delete(PATH)).status_code == 400


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "share"),
        ({"share": 101}, "share"),
        ({"share": -1}, "share"),
        ({"share": "NaN"}, "share"),
        ({"share": 5, "weight": 1}, "weight"),
        ({"share": 5}, "has no canary"),
        ({"share": 5, "entry": {**NEW, "id": "hot"}}, "id of its model"),
        ({"share": 5, "entry": {**NEW, "kinds": ["img2img"]}}, "in kinds"),
        ({"share": 5, "entry": {**NEW, "sorce": "x"}}, "source"),
    ],
    ids=["empty", "much", "negative", "nan", "unknown", "none", "other-id", "kinds", "typo"],
)
async def test_what_is_wrong_is_told(http, tail, body, message):
    refused = await http.put(PATH, json=body)
    assert refused.status_code == 400
    assert message in str(refused.json()["message"])
    assert await tail.canaries() == []


async def test_model_that_does_not_exist_has_no_canary(http, store):
    refused = await http.put(
        "/admin/models/nobody/canary", json={"share": 5, "entry": {**NEW, "id": "nobody"}}
    )
    assert refused.status_code == 404


async def test_client_that_names_a_canary_finds_no_model(http, tail):
    body = {"key": "", "model_id": canary_id("hot"), "prompt": "a cat"}
    answer = (await http.post("/api/v4/dreambooth", json=body)).json()
    assert answer["reason"] == "model_not_found"
