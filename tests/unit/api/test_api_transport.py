"""Headers, health, files, CORS, logs and the schema page."""

import json

import httpx2
import pytest
from structlog.testing import capture_logs

from serve_app.api import StoredFile, create_api
from serve_app.config import HttpConfig, JobsConfig

TEXT2IMG = "/api/v4/dreambooth"
SECRET = "sk_live_canary"


async def test_live_is_always_ok(api):
    answer = await api.http.get("/health/live")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("models", "status", "word"),
    [
        ({"a": True, "b": True}, 200, "ready"),
        ({"a": True, "b": False}, 503, "not_ready"),
        ({}, 503, "not_ready"),
    ],
)
async def test_ready_needs_every_model(api, models, status, word):
    api.service.ready = models
    answer = await api.http.get("/health/ready")
    assert answer.status_code == status
    parts = {"database": True, "storage": False, "safety": True}
    assert answer.json() == {"status": word, "models": models, "parts": parts}


@pytest.mark.parametrize("media_type", ["image/png", "text/plain"])
async def test_file_is_sent_with_safe_headers(api, media_type):
    api.service.files["generations/a-0.png"] = StoredFile(b"data", media_type)
    answer = await api.http.get("/files/generations/a-0.png", headers={"origin": "https://x.y"})
    assert (answer.status_code, answer.content) == (200, b"data")
    assert answer.headers["content-type"].startswith(media_type)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "max-age" in answer.headers["cache-control"]
    head = await api.http.head("/files/generations/a-0.png")
    assert (head.status_code, head.headers["content-length"]) == (200, "4")


@pytest.mark.parametrize("key", ["generations/none.png", "x", "../../etc/passwd", "%2e%2e/%00"])
async def test_file_that_is_not_there_is_a_plain_404(api, key):
    answer = await api.http.get(f"/files/{key}")
    assert answer.status_code == 404
    assert answer.headers["cache-control"] == "no-store"


async def test_file_of_another_type_is_not_sent(api):
    api.service.files["generations/a.html"] = StoredFile(b"<script>", "text/html")
    assert (await api.http.get("/files/generations/a.html")).status_code == 404


async def test_preflight_of_a_browser_is_answered(api):
    headers = {
        "origin": "https://app.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,authorization,key",
    }
    answer = await api.http.options(TEXT2IMG, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "content-type" in answer.headers["access-control-allow-headers"]


async def test_refusal_can_be_read_by_a_browser(make_api):
    api = make_api(http=HttpConfig(max_body_bytes=1024))
    headers = {"origin": "https://app.example"}
    answer = await api.http.post(TEXT2IMG, content=b" " * 2000, headers=headers)
    assert answer.headers["access-control-allow-origin"] == "*"


async def test_origins_can_be_limited(make_api):
    api = make_api(http=HttpConfig(cors_origins=("https://mine.example",)))
    answer = await api.http.get("/health/live", headers={"origin": "https://other.example"})
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("path", ["/api/v6/images/text2img/", "/api/v4/dreambooth//"])
async def test_trailing_slash_is_no_redirect(api, text_body, path):
    assert (await api.post(path, text_body)).json()["status"] == "success"


async def test_call_id_is_made_where_none_came(api):
    made = (await api.http.get("/health/live")).headers["x-request-id"]
    assert len(made) == 32


async def test_call_id_of_the_proxy_is_kept_for_the_job_and_not_sent_twice(api, text_body):
    answer = await api.post(TEXT2IMG, text_body, {"x-request-id": "from-the-proxy"})
    assert "x-request-id" not in answer.headers  # Serve's proxy adds it
    (job,) = api.service.jobs.values()
    assert job.request.call_id == "from-the-proxy"


@pytest.mark.parametrize("given", ["a b", "x" * 200, "<script>"])
async def test_strange_call_id_is_replaced(api, given):
    answer = await api.http.get("/health/live", headers={"x-request-id": given})
    assert len(answer.headers["x-request-id"]) == 32


async def test_access_log_has_the_route_and_no_secret(api, text_body):
    api.service.files["generations/secret-name.png"] = StoredFile(b"", "image/png")
    with capture_logs() as lines:
        await api.post(f"{TEXT2IMG}?key={SECRET}", text_body | {"key": SECRET})
        await api.http.get("/files/generations/secret-name.png")
        await api.http.get(f"/{SECRET}")
    routes = [line["route"] for line in lines if line["event"] == "http_request"]
    assert routes == [TEXT2IMG, "/files/{key:path}", "unknown"]
    printed = json.dumps(lines)
    assert SECRET not in printed
    assert "secret-name" not in printed


async def test_schema_lists_every_call_with_an_example(api):
    paths = (await api.http.get("/openapi.json")).json()["paths"]
    calls = {path: item["post"] for path, item in paths.items() if path.startswith("/api/")}
    assert {f"/api/v4/dreambooth{tail}" for tail in ("", "/img2img", "/inpaint", "/fetch")} <= set(
        calls
    )
    for call in calls.values():
        content = call["requestBody"]["content"]["application/json"]
        assert set(content["example"]) <= set(content["schema"]["properties"])
        assert call["responses"]["200"]["content"]["application/json"]["schema"]
    names = [call["operationId"] for call in calls.values()]
    assert len(names) == len(set(names))


async def test_schema_takes_what_clients_send(api):
    paths = (await api.http.get("/openapi.json")).json()["paths"]
    body = paths["/api/v4/dreambooth"]["post"]["requestBody"]["content"]["application/json"]
    width = body["schema"]["properties"]["width"]["anyOf"]
    assert {kind["type"] for kind in width} == {"integer", "string", "null"}


async def test_example_bodies_are_accepted(api):
    paths = (await api.http.get("/openapi.json")).json()["paths"]
    for path in ("/api/v4/dreambooth", "/api/v4/dreambooth/img2img", "/api/v4/dreambooth/inpaint"):
        content = paths[path]["post"]["requestBody"]["content"]["application/json"]
        reply = await api.reply(path, content["example"])
        assert reply["status"] == "success", reply


async def test_docs_page_is_there(api):
    assert (await api.http.get("/docs")).status_code == 200


async def test_app_below_a_prefix_answers_in_its_family(service, text_body):
    app = create_api(service, HttpConfig(), JobsConfig())
    transport = httpx2.ASGITransport(app=app, root_path="/sd")
    async with httpx2.AsyncClient(transport=transport, base_url="http://testserver") as client:
        bad = await client.post("/sd/api/v6/images/text2img/", json={})
        assert (bad.status_code, bad.json()["status"]) == (404, "error")
        good = await client.post("/sd/api/v4/dreambooth", json=text_body)
        assert good.json()["output"][0].startswith("http://testserver/sd/files/")
