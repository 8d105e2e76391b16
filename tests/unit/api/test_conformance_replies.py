"""The documented replies, errors, webhooks and files (API reference, sections 7 to 10), by row.

`docs/conformance.md` lists the rows, also those whose tests are elsewhere.
"""

import json

import pytest

from serve_app import errors
from serve_app.api.replies.webhook import WebhookWriter
from serve_app.config import HttpConfig, JobsConfig, StorageConfig
from serve_app.failure import to_failure
from serve_app.storage.link import FileLinks
from serve_app.testing.storage import MemoryStore
from serve_app.types import Job, JobResult, JobState
from tests.builders import job_request

V4 = "/api/v4/dreambooth"
V6 = "/api/v6/images/text2img"
FETCH = f"{V4}/fetch"
UUID = "dc639bd6-d605-42c7-950e-48c531124d0d"
LINK = f"http://testserver/files/generations/{UUID}-0.png"


def is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_links(value):
    return isinstance(value, list) and value and all(link.startswith("http") for link in value)


def is_yes_no(value):
    return value in ("yes", "no")


SUCCESS = {
    "status": lambda reply: reply["status"] == "success",
    "generationTime": lambda reply: reply["generationTime"] == 20.970642805099487,
    "id": lambda reply: isinstance(reply["id"], int) and reply["meta"]["id"] == str(reply["id"]),
    "output": lambda reply: reply["output"] == [LINK, LINK.replace("-0.png", "-1.png")],
    "proxy_links": lambda reply: reply["proxy_links"] == reply["output"] and reply["output"],
    "nsfw_content_detected": lambda reply: reply["nsfw_content_detected"] is False,
    "webhook_status": lambda reply: reply["webhook_status"] == "",
    "meta": lambda reply: reply["meta"]["prompt"] == "a cat",
    "tip": lambda reply: reply["tip"] == "",
}
META = {
    "W, H": lambda meta: (meta["W"], meta["H"]) == (512, 512),
    "steps, n_samples": lambda meta: (meta["steps"], meta["n_samples"]) == (31, 2),
    "guidance_scale, strength": lambda meta: meta["guidance_scale"] == 5.5,
    "yes/no": lambda meta: all(
        is_yes_no(meta[name])
        for name in ("tomesd", "use_karras_sigmas", "enhance_prompt", "temp", "base64", "upscale",
                     "instant_response", "multi_lingual", "panorama", "self_attention")
    ),
    "seed": lambda meta: isinstance(meta["seed"], int) and 0 <= meta["seed"] < 2**32,
    "lora": lambda meta: meta["lora"] == "contrast-fix,yae-miko",
    "lora_strength": lambda meta: meta["lora_strength"] == "0.45,0.55",
    "n_samples": lambda meta: "samples" not in meta,
    "embeddings": lambda meta: meta["embeddings"] == "badhands",
    "safetychecker, safety_checker": lambda m: m["safetychecker"] == m["safety_checker"] == "yes",
    "outdir, full_url": lambda meta: (meta["outdir"], meta["full_url"]) == ("out", "no"),
    "algorithm_type": lambda meta: meta["algorithm_type"] == "no",
    "id": lambda meta: isinstance(meta["id"], str),
    "file_prefix": lambda meta: meta["file_prefix"] == UUID,
    "ip_adapter_id, ip_adapter_scale, ip_adapter_image": lambda meta: (
        meta["ip_adapter_id"], meta["ip_adapter_scale"], meta["ip_adapter_image"],
    ) == (None, 0.6, None),
    "watermark": lambda meta: meta["watermark"] == "no",
    "webhook, track_id": lambda meta: (meta["webhook"], meta["track_id"]) == (None, "order-7"),
}  # fmt: skip
PROCESSING = {
    "status": lambda reply: reply["status"] == "processing",
    "tip": lambda reply: isinstance(reply["tip"], str),
    "eta": lambda reply: isinstance(reply["eta"], int),
    "messege": lambda reply: reply["messege"] == reply["message"] != "",
    "webhook_status": lambda reply: reply["webhook_status"] == "",
    "fetch_result": lambda reply: reply["fetch_result"].endswith(f"/fetch/{reply['id']}"),
    "id": lambda reply: isinstance(reply["id"], int),
    "output": lambda reply: reply["output"] == [],
    "meta": lambda reply: reply["meta"]["id"] == str(reply["id"]),
    "future_links": lambda reply: (
        is_links(reply["future_links"]) and list(reply)[-1] == "future_links"
    ),
}
ASKED = {
    "key": "k", "model_id": "your_model_id", "prompt": "a cat", "samples": 2, "track_id": "order-7",
    "lora_model": "contrast-fix, yae-miko", "lora_strength": "0.45,0.55",
    "embeddings_model": "badhands", "guidance_scale": "5.5",
}  # fmt: skip


@pytest.fixture
async def success(api):
    return await api.reply(V4, ASKED)


@pytest.mark.parametrize("row", SUCCESS)
async def test_success_has_the_key(success, row):
    assert SUCCESS[row](success)


async def test_success_says_whether_any_picture_was_flagged(api):
    api.service.outcome = JobResult(keys=(), nsfw=(False, True), generation_time_s=1.0)
    assert (await api.reply(V4, ASKED))["nsfw_content_detected"] is True


@pytest.mark.parametrize("row", META)
async def test_meta_has_the_documented_form(success, row):
    assert META[row](success["meta"])


@pytest.mark.parametrize(("asked", "shown"), [("0.45", 0.45), (1, 1.0), (None, 0.7)])
@pytest.mark.parametrize("kind", ["img2img", "inpaint"])
async def test_meta_has_the_strength_that_was_asked_for(api, kind, asked, shown):
    pictures = dict.fromkeys(("init_image", "mask_image"), "https://a.example/i.png")
    meta = (await api.reply(f"{V4}/{kind}", ASKED | pictures | {"strength": asked}))["meta"]
    assert meta["strength"] == shown


@pytest.mark.parametrize("row", PROCESSING)
async def test_processing_has_the_key(api, row):
    api.service.outcome = None
    assert PROCESSING[row](await api.reply(V4, ASKED))


async def _done(api):
    first = await api.reply(V4, ASKED)
    return {"status": "success", "id": first["id"]}, first["id"]


async def _running(api):
    api.service.outcome = None
    first = await api.reply(V4, ASKED)
    return {"status": "processing", "messege": "try again later.", "output": ""}, first["id"]


async def _failed(api):
    api.service.outcome = to_failure(errors.GenerationFailed("oom"))
    await api.reply(V4, ASKED)
    job_id = next(iter(api.service.jobs))
    return {"status": "failed", "id": "", "message": "Failed, Try Again", "output": ""}, job_id


async def _unknown(_api):
    return {"status": "failed", "id": "", "message": "Request not found", "output": ""}, 4711


async def _error(_api):
    return {"status": "error"}, None


FETCHED = {
    "done": _done, "running": _running, "failed": _failed, "unknown id": _unknown, "error": _error,
}  # fmt: skip


@pytest.mark.parametrize("row", FETCHED)
async def test_fetch_answers_as_documented(api, row):
    expected, job_id = await FETCHED[row](api)
    reply = await api.reply(FETCH, {"key": "", "request_id": job_id})
    assert {name: reply.get(name) for name in expected} == expected
    assert not {"meta", "generationTime"} & set(reply)


@pytest.mark.parametrize(
    ("hold_s", "fields", "status"),
    [
        pytest.param(20.0, {}, "success", id="held"),
        pytest.param(0.0, {}, "processing", id="never-held"),
        pytest.param(20.0, {"instant_response": "yes"}, "processing", id="instant_response"),
    ],
)
async def test_same_call_answers_success_or_processing(make_api, hold_s, fields, status):
    api = make_api(jobs=JobsConfig(hold_s=hold_s))
    assert (await api.reply(V4, ASKED | fields))["status"] == status


async def _answer(api, fields=None, path=V4, content=None):
    body = ASKED | (fields or {})
    if content is not None:
        answer = await api.http.post(path, content=content)
    else:
        answer = await api.post(path, body)
    return answer.status_code, answer.json()


async def _rate(api):
    api.service.refusal = errors.RateLimited(30)
    return await _answer(api)


async def _bad_key(api):
    api.service.keys = {"good": "owner"}
    return await _answer(api)


async def _job_failed(api):
    api.service.outcome = to_failure(errors.GenerationFailed("oom"))
    return await _answer(api)


OLD_ERRORS = {
    "rate / spam filter": (_rate, {"message": "Rate limit exceeded"}),
    "bad key": (_bad_key, {"message": "Invalid Api Key"}),
    "bad JSON": (lambda api: _answer(api, content=b"{"), {"message": "Invalid API Request"}),
    "job failed": (
        _job_failed,
        {"status": "failed", "id": "", "message": "Failed, Try Again", "output": ""},
    ),
    "missing field": (
        lambda api: _answer(api, {"prompt": None}),
        {"message": {"prompt": ["The prompt field is required."]}},
    ),
    "no model_id": (
        lambda api: _answer(api, {"model_id": None}),
        {"message": "Model id not found"},
    ),
}


@pytest.mark.parametrize("row", OLD_ERRORS)
async def test_old_error_has_the_documented_body_and_http_200(api, row):
    answer, expected = OLD_ERRORS[row]
    status, reply = await answer(api)
    assert status == 200
    expected = {"status": "error"} | expected
    assert {name: reply[name] for name in expected} == expected


def _overloaded(error):
    async def answer(api):
        api.service.refusal = error
        return await _answer(api, path=V6)

    return answer


def _with(**fields):
    return lambda api: _answer(api, fields, path=V6)


async def _bad_key_v6(api):
    api.service.keys = {"good": "owner"}
    return await _answer(api, path=V6)


NEW_ERRORS = {
    "400 prompt is required": (_with(prompt=None), 400, "prompt is required"),
    "400 width must be between": (_with(width=9), 400, "width must be between 256 and 1024"),
    "400 divisible by 8": (_with(height=513), 400, "height must be divisible by 8"),
    "400 samples": (_with(samples=5), 400, "samples must be between 1 and 4"),
    "400 guidance_scale": (_with(guidance_scale=0), 400, "guidance_scale must be between 1 and 20"),
    "401": (_bad_key_v6, 401, "Invalid API key"),
    "429": (_overloaded(errors.RateLimited(30)), 429, "Rate limit exceeded"),
    "500": (_overloaded(RuntimeError("secret")), 500, ""),
    "503": (_overloaded(errors.Overloaded(30)), 503, ""),
    "Model not found": (_with(model_id="none"), 404, "Model id not found"),
}


@pytest.mark.parametrize("row", NEW_ERRORS)
async def test_later_error_has_its_code_and_text(api, row):
    answer, code, text = NEW_ERRORS[row]
    status, reply = await answer(api)
    assert status == code
    assert reply["status"] == "error"
    assert text in reply["message"]
    assert "secret" not in json.dumps(reply)


@pytest.mark.parametrize(
    ("path", "switch", "code"),
    [
        pytest.param(V4, {}, 200, id="V3, V4"),
        pytest.param(V4, {"real_codes_v3_v4": True}, 400, id="V3, V4 switched"),
        pytest.param(V6, {}, 400, id="V6, V7"),
        pytest.param(V6, {"real_codes_v6_v7": False}, 200, id="V6, V7 switched"),
    ],
)
async def test_each_era_has_its_http_codes(make_api, path, switch, code):
    status, _ = await _answer(make_api(HttpConfig(**switch)), {"samples": 9}, path)
    assert status == code


async def webhook(outcome, track_id="order-7"):
    job = Job(id=5, state=JobState.PROCESSING, request=job_request(track_id=track_id), created_at=0)
    links = FileLinks(MemoryStore(), StorageConfig()).make
    return json.loads(await WebhookWriter(links).write(job, outcome))


DONE = JobResult(keys=("generations/a.png",), nsfw=(False,), generation_time_s=1.5)
FLAGGED = DONE.model_copy(update={"nsfw": (False, True), "keys": ("temp/a.png", "temp/b.png")})
BROKEN = to_failure(errors.GenerationFailed("oom"))
FILES = f"{job_request().base_url}/files"
_SENT = {"id": 5, "track_id": "order-7"}
WEBHOOK = {
    "success body": (
        DONE,
        {"status": "success", **_SENT, "output": [f"{FILES}/generations/a.png"],
         "generationTime": 1.5, "nsfw_content_detected": False},
    ),
    "failure body": (BROKEN, {"status": "failed", **_SENT, "message": "Failed, Try Again"}),
    "must have": (BROKEN, {"status": "failed", **_SENT, "output": []}),
    "fields a Discord bot reads": (
        FLAGGED,
        {"status": "success", **_SENT, "nsfw_content_detected": True,
         "output": [f"{FILES}/temp/a.png", f"{FILES}/temp/b.png"]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", WEBHOOK)
async def test_webhook_body_has_the_documented_values(row):
    outcome, values = WEBHOOK[row]
    body = await webhook(outcome)
    assert {name: body[name] for name in values} == values
    asked = job_request().spec
    shown = {name: body["meta"][name] for name in ("prompt", "negative_prompt", "seed", "model_id")}
    assert shown == {name: getattr(asked, name) for name in shown}


@pytest.mark.parametrize("track_id", ["order-7", 7, None], ids=["string", "int", "null"])
async def test_track_id_is_echoed_as_sent(track_id):
    assert (await webhook(DONE, track_id))["track_id"] == track_id


@pytest.mark.parametrize(
    ("row", "fields", "start", "end"),
    [
        ("plain", {}, "/files/generations/", ".png"),
        ("temp", {"temp": "yes"}, "/files/temp/", ".png"),
        ("base64 output", {"base64": "yes"}, "/files/generations/", ".base64"),
    ],
    ids=lambda value: value if isinstance(value, str) and "/" not in value else None,
)
async def test_output_url_has_a_documented_form(api, row, fields, start, end):
    reply = await api.reply(V4, ASKED | fields)
    for link in reply["output"] + reply["future_links"]:
        assert link.removeprefix("http://testserver").startswith(start), row
        assert link.endswith(end), row


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"], ids=["raw", "data-uri"])
@pytest.mark.parametrize("flag", ["yes", "no"])
async def test_base64_input_is_taken(api, prefix, flag):
    inline = {"init_image": f"{prefix}aGk=", "mask_image": f"{prefix}aGk=", "base64": flag}
    reply = await api.reply(f"{V4}/inpaint", ASKED | inline)
    job = api.service.jobs[reply["id"]].request
    assert job.init_image.stored_key
    assert job.mask_image.stored_key
    # How pictures came has nothing to do with how they are to leave.
    endings = {link.rpartition(".")[2] for link in reply["output"]}
    assert (job.output.base64, endings) == (flag == "yes", {"base64" if flag == "yes" else "png"})


HELPERS = {
    "/api/v3/base64_crop": (
        {"image": "data:image/png;base64,aGk=", "crop": "true"},
        "status messege link request_id",
    ),
    "/api/v6/base64_to_url": ({"base64_string": "aGk="}, "status id output"),
    "/api/v6/image_editing/base64_to_url": ({"init_image": "aGk="}, "status id output"),
    "/api/v3/nsfw_image_check": (
        {"init_image": "https://a.b/c.png", "threshold": 0.5},
        "images has_nsfw_concept",
    ),
    "/api/v3/system_load": ({}, "queue_num queue_time status"),
    "/api/v3/delete_image": ({"type": "image"}, "status messege"),
}


@pytest.mark.parametrize("row", HELPERS)
async def test_helper_call_answers_the_documented_keys(api, success, row):
    fields, names = HELPERS[row]
    if row.endswith("delete_image"):
        fields = fields | {"request_id": success["id"]}
    reply = await api.reply(row, {"key": "k"} | fields)
    assert set(names.split()) <= set(reply)
    assert reply.get("status") in ("success", "ok", None)


@pytest.mark.parametrize("path", ["/api/v5/clear_cache", "/api/v3/load_model"])
async def test_helper_call_that_makes_no_sense_here_is_a_404(api, path):
    assert (await api.post(path, {"key": "k"})).status_code == 404
