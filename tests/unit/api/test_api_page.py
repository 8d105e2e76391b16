"""`docs/api.md` names every call, field, reply key and reason."""

import re
from pathlib import Path

import pytest

from serve_app import errors
from serve_app.api.replies import bodies
from serve_app.api.requests.schemas import ControlNetBody, FetchBody
from tests.unit.api import test_conformance_controlnet as controls
from tests.unit.api import test_conformance_fields as fields
from tests.unit.api import test_conformance_replies as answers
from tests.unit.api import test_masks as masks

ROOT = Path(__file__).parents[3]
CONFORMANCE = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
QUOTED = set(re.findall(r"`([^`\n]+)`", PAGE))
REPLIES = [getattr(bodies, name) for name in bodies.__all__]
REASONS = [
    cls.code
    for cls in vars(errors).values()
    if isinstance(cls, type) and issubclass(cls, errors.DreamserveError)
]


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


async def test_page_names_every_meta_key(api, inpaint_body, text_body):
    for path, body in (
        ("/api/v4/dreambooth/inpaint", inpaint_body),
        ("/api/v3/dreambooth", text_body),
        ("/api/v5/controlnet", controls.BASE),
    ):
        meta = (await api.reply(path, body))["meta"]
        assert set(meta) <= QUOTED


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
        assert f"def {name}" in file.read_text(encoding="utf-8"), (named, name)


@pytest.mark.parametrize("field", ["key", *ControlNetBody.model_fields])
def test_every_field_has_a_row(field):
    extensions = {"exclusive", "full_frame", "control_guidance_start", "control_guidance_end"}
    extensions |= masks.FIELDS
    tables = (fields.HONOURED, controls.HONOURED)
    rows = {name for table in tables for row in table for name in row.split(", ")}
    assert field in rows | extensions
