"""`docs/api.md` names every call, field, reply key and reason."""

import re
from pathlib import Path

import pytest
from pydantic import SecretStr

import serve_app
from serve_app import errors
from serve_app.api import create_api
from serve_app.api.replies import bodies
from serve_app.api.requests.schemas import ControlNetBody, FetchBody, parse
from serve_app.api.routes.admin import Accounts, Admin
from serve_app.api.routes.overview import Watch
from serve_app.config import HttpConfig, JobsConfig
from serve_app.models.protocol import ReplicaPhase, ReplicaReport
from tests.unit.api import test_conformance_controlnet as controls
from tests.unit.api import test_conformance_fields as fields
from tests.unit.api import test_conformance_replies as answers
from tests.unit.api import test_masks as masks

ROOT = Path(__file__).parents[3]
CONFORMANCE = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
QUOTED = set(re.findall(r"`([^`\n]+)`", PAGE))
REPLIES = [getattr(bodies, name) for name in bodies.__all__]
CLASSES = [
    cls
    for cls in vars(errors).values()
    if isinstance(cls, type) and issubclass(cls, errors.DreamserveError)
]
REASONS = sorted({cls.code for cls in CLASSES})


@pytest.mark.parametrize("field", ["key", *ControlNetBody.model_fields, *FetchBody.model_fields])
def test_page_names_every_request_field(field):
    assert field in QUOTED


@pytest.mark.parametrize("key", sorted({key for reply in REPLIES for key in reply.model_fields}))
def test_page_names_every_reply_key(key):
    assert key in QUOTED


@pytest.mark.parametrize("reason", REASONS)
def test_page_names_every_reason(reason):
    assert reason in QUOTED


async def test_page_names_every_call(api):
    paths = (await api.http.get("/openapi.json")).json()["paths"]
    lines = [line for line in PAGE.splitlines() if line.startswith("| `/api/")]
    named = set()
    for line in lines:
        first, *others = re.findall(r"`([^`]+)`", line.split("|")[1])
        base = first if line.startswith("| `/api/v3/dreambooth`") else first.rpartition("/")[0]
        named |= {first, *(path if path.startswith("/api/") else base + path for path in others)}
    assert {path for path in paths if path.startswith("/api/")} == named


async def test_version_is_told_where_the_page_of_versions_says(api):
    info = (await api.http.get("/openapi.json")).json()["info"]
    assert info["version"] == serve_app.__version__


def rows_of(heading, page=PAGE):
    """Cells of every table row below a heading, up to the next heading."""
    section = page.split(f"\n{heading}\n", 1)[1].split("\n#", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def quoted(text):
    return re.findall(r"`([^`]+)`", text)


# Replies as the page calls them; `schedulers_list` and rows of lists among them.
REPLY_OF = {
    "success": bodies.SuccessReply, "processing": bodies.ProcessingReply,
    "failed": bodies.FailedReply, "error": bodies.ErrorReply,
    "fetch of a finished job": bodies.FetchedReply, "fetch of an open job": bodies.RunningReply,
    "`cancel`": bodies.CancelledReply, "`delete_image`": bodies.DeletedReply,
    "`base64_crop`": bodies.CropReply, "`base64_to_url`": bodies.UrlReply,
    "`nsfw_image_check`": bodies.CheckReply, "`system_load`": bodies.LoadReply,
    "`model_reload`": bodies.ReloadReply, "one of `replicas`": bodies.ReplicaRow,
    "`events` (POST)": bodies.TokenReply,
    "`schedulers_list`": bodies.SchedulersReply, "one of `model_list`": bodies.ModelRow,
}  # fmt: skip


@pytest.mark.parametrize("name", REPLY_OF)
def test_page_lists_the_keys_of_a_reply_in_their_order(name):
    row = next(row for row in rows_of("## Replies") if row[0] == name)
    assert quoted(row[1].split(";")[0]) == list(REPLY_OF[name].model_fields)


def test_page_lists_every_reply():
    assert set(REPLY_OF.values()) == set(REPLIES) - {bodies.Reply}


META_OF = {
    "text to image": ("/api/v3/dreambooth", {}),
    "image to image": ("/api/v4/dreambooth/img2img", {}),
    "inpaint": ("/api/v4/dreambooth/inpaint", {}),
    "ControlNet": ("/api/v5/controlnet", controls.BASE),
}


@pytest.mark.parametrize("call", META_OF)
async def test_page_lists_the_keys_of_meta_in_their_order(api, inpaint_body, call):
    path, body = META_OF[call]
    text = PAGE.split("### meta", 1)[1].split("## Errors", 1)[0]
    order = {row[0]: quoted(row[1]) for row in rows_of("### meta") if len(row) == 2}
    later = quoted(text.split("that have not come yet:", 1)[1].split("An inpainting", 1)[0])
    control = quoted(text.split("The ControlNet calls end", 1)[1].split("\n\n", 1)[0])
    named = [*order.get(call, order["text to image"]), *later]
    named += ["strength"] if call == "inpaint" else control if call == "ControlNet" else []
    meta = (await api.reply(path, body or inpaint_body))["meta"]
    named += ["hint_images"] if "hint_images" in meta else []
    assert list(meta) == list(dict.fromkeys(named))


def test_page_names_what_only_a_job_that_ran_has_in_meta():
    assert [quoted(row[0])[0] for row in rows_of("### meta")[-7:]] == [
        "upscaler", "hint_images", "crop", "painted", "mask_mode", "first_pass", "generation",
    ]  # fmt: skip


def test_page_gives_every_reason_its_code():
    told = {reason: row[1] for row in rows_of("## Errors")[2:] for reason in quoted(row[0])}
    codes = {cls.code: str(cls.status) for cls in CLASSES}
    codes |= {"already_finished": "409", "no_such_call": "404, 405"}
    assert told == codes


async def test_page_names_every_call_of_the_administration(service):
    admin = Admin(None, None, SecretStr("x"), None, Accounts(None, None, None))
    app = create_api(service, HttpConfig(), JobsConfig(), operator=admin, watch=Watch(list, list))
    served = app.openapi()["paths"]
    calls = {
        f"{method.upper()} {path.replace('{model_id}', '{id}')}"
        for path, methods in served.items()
        for method in methods
        if path.startswith("/admin")
    }
    rows = {quoted(row[0])[0]: quoted(row[1]) for row in rows_of("## Administration")[2:]}
    assert set(rows) == calls
    report = ReplicaReport(
        model_id="a", replica_id="b", weights_version=1, phase=ReplicaPhase.READY, serving=1
    )
    keys = list(report.model_dump(by_alias=True, exclude={"model_id"}))
    assert rows["GET /admin/models/{id}/replicas"][1:] == keys


# What the column of defaults says of a field that the body itself has a default for.
DEFAULT_AS_WORD = {True: "yes", False: "no"}


@pytest.mark.parametrize(
    "field",
    [name for name, f in ControlNetBody.model_fields.items() if isinstance(f.default, bool)],
)
def test_page_tells_the_default_of_a_yes_or_no(field):
    told = {
        name: row[1]
        for heading in ("## Request fields of a generation call", "### ControlNet")
        for row in rows_of(heading)
        for name in quoted(row[0])
    }
    assert told[field] == DEFAULT_AS_WORD[ControlNetBody.model_fields[field].default]


# What becomes of a call that leaves such a field out; and of one with a LoRA, an adapter, a net.
NUMBERS = {
    "samples": lambda job: job.spec.samples,
    "clip_skip": lambda job: job.spec.clip_skip,
    "priority": lambda job: job.priority,
    "mask_expand": lambda job: job.spec.masking.expand_px,
    "overlap_width": lambda job: job.spec.outpaint.overlap_px,
    "lora_strength": lambda job: job.spec.loras[0].strength,
    "ip_adapter_scale": lambda job: job.spec.ip_adapter.scale,
    "controlnet_conditioning_scale": lambda job: job.spec.controlnets[0].scale,
    "control_guidance_start": lambda job: job.spec.control_start,
    "control_guidance_end": lambda job: job.spec.control_end,
}
ADDED = {
    "lora_strength": {"lora_model": "contrast-fix"},
    "ip_adapter_scale": fields.ADAPTER,
    "overlap_width": {"outpaint": {"right": 64}},
}


def cells_of(column):
    """That column of the tables of fields, by field."""
    headings = ("## Request fields of a generation call", "### ControlNet")
    rows = [row for heading in headings for row in rows_of(heading)[2:]]
    return {name: row[column] for row in rows for name in quoted(row[0])}


@pytest.mark.parametrize("field", NUMBERS)
async def test_page_tells_the_default_of_a_number(api, inpaint_body, field):
    told = dict(zip(quoted("`control_guidance_start` `control_guidance_end`"), "01", strict=True))
    is_net = field.startswith("control")
    path = "/api/v5/controlnet" if is_net else "/api/v4/dreambooth/inpaint"
    body = controls.BASE if is_net else inpaint_body
    body = {name: value for name, value in body.items() if name != field} | ADDED.get(field, {})
    reply = await api.reply(path, body)
    job = api.service.jobs[reply["id"]].request
    assert NUMBERS[field](job) == float(told.get(field) or cells_of(1)[field])


RANGES = {
    field: tuple(float(number) for number in found[0])
    for field, text in cells_of(2).items()
    if (found := re.findall(r"^(-?\d+) to (-?\d+)\b", text))
}


@pytest.mark.parametrize("field", RANGES)
def test_page_tells_the_range_of_a_number(field):
    least, most = RANGES[field]
    for value in (least, most):
        parse(ControlNetBody, {field: value})
    for value in (least - 1, most + 1):
        with pytest.raises(errors.InvalidFields):
            parse(ControlNetBody, {field: value})


@pytest.mark.parametrize(
    "path", ["/api/v4/dreambooth/fetch", "/api/v6/images/fetch", "/api/v7/images/fetch"]
)
async def test_fetch_of_a_cancelled_job_is_answered_as_the_page_says(api, path, text_body):
    api.service.outcome = None
    job_id = (await api.reply("/api/v4/dreambooth", text_body))["id"]
    await api.reply("/api/v4/dreambooth/cancel", {"request_id": job_id})
    answer = await api.post(path, {"request_id": job_id})
    assert (answer.status_code, answer.json()["status"]) == (200, "failed")
    assert answer.json()["reason"] == "cancelled"
    again = await api.post("/api/v6/images/cancel", {"request_id": job_id})
    assert (again.status_code, again.json()["status"]) == (200, "success")


TABLES = [fields.HONOURED, fields.REFUSED, fields.DEFAULTS, fields.COERCED, fields.REWRITTEN]
TABLES += [answers.SUCCESS, answers.META, answers.PROCESSING, answers.FETCHED, answers.WEBHOOK]
TABLES += [controls.HONOURED, controls.REFUSED, controls.DEFAULTS, controls.META]
TABLES += [answers.OLD_ERRORS, answers.NEW_ERRORS, answers.HELPERS, masks.OUTPAINT]


@pytest.mark.parametrize("row", sorted({row for table in TABLES for row in table}))
def test_conformance_page_names_every_row(row):
    assert row in " ".join(CONFORMANCE.split())


def test_conformance_page_names_tests_that_exist():
    file = None
    for named, name in re.findall(r"`(tests/[\w/.]+)?(?:::(\w+))?`", CONFORMANCE):
        file = ROOT / named if named else file
        assert file is not None, name
        text = file.read_text(encoding="utf-8")
        assert not name or f"def {name}(" in text, (named, name)


@pytest.mark.parametrize("field", ["key", *ControlNetBody.model_fields])
def test_every_field_has_a_row(field):
    extensions = {"exclusive", "full_frame", "control_guidance_start", "control_guidance_end"}
    extensions |= {"priority"}
    extensions |= masks.FIELDS
    tables = (fields.HONOURED, controls.HONOURED)
    rows = {name for table in tables for row in table for name in row.split(", ")}
    assert field in rows | extensions
