"""The pages for clients say what the settings and the code say, value by value."""

import base64
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import serve_app
from serve_app import errors
from serve_app.api.replies.webhook import WebhookWriter
from serve_app.api.requests import (
    addon,
    body,
    call,
    coerce,
    control,
    idempotency,
    lift,
    schemas,
    size,
    steps,
)
from serve_app.api.routes import file
from serve_app.config import AppConfig, StorageConfig
from serve_app.config.storage import S3Config
from serve_app.failure import to_failure
from serve_app.net import judge
from serve_app.service import uploads
from serve_app.storage.link import FileLinks
from serve_app.testing.storage import MemoryStore
from serve_app.types import Job, JobResult, JobState
from serve_app.webhooks.retry import SCHEDULE_S
from serve_app.webhooks.signing import Signer, new_secret
from tests.builders import job_request

DOCS = Path(__file__).parents[2] / "docs"
GENERATED = {"configuration.md", "metrics.md", "rooms.md", "formats.md"}
PAGES = {path.name: path.read_text(encoding="utf-8") for path in DOCS.glob("*.md")}
CONFIG = AppConfig.model_construct()  # the defaults, whatever the environment says


def default_of(setting):
    if setting.startswith("storage.s3."):
        return S3Config.model_fields[setting.rpartition(".")[2]].default
    section, _, name = setting.partition(".")
    return getattr(getattr(CONFIG, section), name)


def shown(setting):
    """A default as the pages write it."""
    value, special = default_of(setting), SPECIAL.get(setting)
    if special is not None:
        return special
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if setting.endswith("_bytes"):
        return f"{value // 1024**2} MiB" if value >= 1024**2 else f"{value // 1024} KiB"
    if setting.endswith("_s"):
        if value >= 2 * 86_400:
            return f"{value / 86_400:g} days"
        return f"{value / 3600:g} h" if value >= 3600 else f"{value:g} s"
    return f"{value:,} px" if setting.endswith("_px") else f"{value:,}"


# Defaults that are no numbers: 0 or nothing, which mean something else.
SPECIAL = {
    "storage.result_ttl_s": "for ever",
    "limits.requests_per_minute": "any number",
    "webhooks.schedule_s": str(len(SCHEDULE_S)),
}


def table_rows(page):
    lines = [line for line in PAGES[page].splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def in_prose():
    """Every "`section.field` words (default)" and "`section.field`, default unit" of the pages."""
    in_brackets = r"`(\w+\.\w+)`[^`.()|]{0,40}?\((\d[^)]*)\)"
    after_comma = r"`(\w+\.\w+)`, (\d[\d,]* (?:[KM]iB|s|px|h|days))\b"
    for page, text in PAGES.items():
        if page in GENERATED:
            continue
        for setting, told in re.findall(in_brackets, text) + re.findall(after_comma, text):
            if setting.split(".")[0] in AppConfig.model_fields:
                yield page, setting, " ".join(told.split())


@pytest.mark.parametrize(
    ("page", "setting", "told"), [pytest.param(*one, id=f"{one[0]}-{one[1]}") for one in in_prose()]
)
def test_default_in_prose_is_that_of_the_setting(page, setting, told):
    assert told == shown(setting)


@pytest.mark.parametrize("page", ["limits.md", "retention.md"])
def test_defaults_in_tables_are_those_of_the_settings(page):
    three = [row for row in table_rows(page) if len(row) >= 3]
    rows = [row for row in three if re.fullmatch(r"`[\w.]+`", row[2])]
    assert len(rows) >= 7
    assert {row[2]: row[1] for row in rows} == {row[2]: shown(row[2].strip("`")) for row in rows}


# What clients do not meet: how the service reads files and delivers.
_OF_OPERATORS = {
    "images.decode_workers", "images.decode_niceness", "images.allowed_hosts", "webhooks.secrets",
    "images.max_prepared",
    "webhooks.lease_s", "webhooks.max_in_flight", "webhooks.poll_s", "webhooks.allowed_hosts",
    "http.public_url", "http.styles", "http.cors_origins", "http.real_codes_v3_v4",
    "http.real_codes_v6_v7", "http.running_fetch_output", "http.upscaler",
    "http.outpaint_model", "http.playground",
}  # fmt: skip


@pytest.mark.parametrize("section", ["http", "images", "limits", "webhooks"])
def test_page_of_limits_has_every_limit(section):
    names = AppConfig.model_fields[section].annotation.model_fields
    wanted = {f"{section}.{name}" for name in names}
    named = {row[2].strip("`") for row in table_rows("limits.md") if len(row) == 3}
    assert wanted - _OF_OPERATORS - named == set()


FIXED = {
    "characters of `prompt` and of `negative_prompt`": coerce._MAX_TEXT,
    "characters of an id, or of a list of ids": coerce._MAX_ID,
    "characters of a `webhook` URL": coerce._MAX_URL,
    "characters of `track_id` as JSON": coerce._MAX_TRACK_ID,
    "characters of `key`": call._MAX_KEY,
    "characters of an `Idempotency-Key`": 255,
    "values in a JSON body, of all levels": body._MAX_VALUES,
    "digits of a whole number": body._MAX_DIGITS,
    "bytes of a value, above which it is taken for a picture": lift.LONG_BYTES,
    "samples": 4,
    "steps": steps._MAX_STEPS,
    "greatest `clip_skip`": 8,
    "LoRAs of a call, and embeddings of a call": addon._MAX_NAMED,
    "ControlNets of a call": control._MAX_NETS,
    "strength of a LoRA, either way": schemas.MAX_LORA_STRENGTH,
    "scale of a ControlNet": schemas._MAX_CONTROL_SCALE,
}


@pytest.mark.parametrize("what", FIXED)
def test_fixed_limit_is_that_of_the_code(what):
    rows = {row[0]: row[1] for row in table_rows("limits.md")}
    assert rows[what] == f"{FIXED[what]:,}"


@pytest.mark.parametrize(
    ("field", "least", "most"),
    [("samples", 1, 4), ("clip_skip", 1, 8), ("guidance_scale", 1, 20)],
    ids=["samples", "clip_skip", "guidance_scale"],
)
def test_range_that_the_page_names_is_the_one_that_is_read(field, least, most):
    for value in (least, most):
        assert getattr(schemas.parse(schemas.GenerationBody, {field: value}), field) == value
    for value in (least - 1, most + 1):
        with pytest.raises(errors.InvalidFields):
            schemas.parse(schemas.GenerationBody, {field: value})


def test_longest_idempotency_key_is_taken_and_a_longer_one_is_not():
    most = FIXED["characters of an `Idempotency-Key`"]
    assert idempotency.read("x" * most, "/", {}).key == "x" * most
    with pytest.raises(errors.InvalidRequest):
        idempotency.read("x" * (most + 1), "/", {})


def test_sides_and_uploads_are_those_of_the_code():
    rows = {row[0]: row[1] for row in table_rows("limits.md")}
    least, most, strict = re.findall(r"(?<!V)\b[\d,]+", rows["sides of a picture to paint"])
    assert (int(least), int(most.replace(",", "")), int(strict)) == (
        size._MIN_PX, size._MAX_PX, size._STRICT_MIN_PX,
    )  # fmt: skip
    mib = uploads._MAX_PUBLISHED_BYTES // 1024**2
    assert rows["a file for `base64_crop` or `base64_to_url`"] == f"{mib} MiB"
    assert f"take at most {mib} MiB" in PAGES["pictures.md"]
    assert coerce._MAX_URL < judge.MAX_URL_CHARS


def test_ages_of_files_are_those_of_their_headers():
    assert f"`Cache-Control: {file._HEADERS['Cache-Control']}`" in PAGES["retention.md"]


_UNITS = {"s": 1, "min": 60, "h": 3600}


def test_schedule_in_the_page_is_that_of_the_code():
    pattern = r"(\d+) attempts, the first at once, and then (.*?) after"
    sentence = re.search(pattern, PAGES["webhooks.md"], re.DOTALL)
    pauses = re.findall(r"(\d+) (s|min|h)\b", sentence[2])
    told = [int(number) * _UNITS[unit] for number, unit in pauses]
    assert (int(sentence[1]), [0, *told]) == (len(SCHEDULE_S), list(SCHEDULE_S))
    assert sum(told) == 75 * 3600 + 36 * 60 + 25
    assert "over 75 h 36 min" in PAGES["limits.md"]


async def test_keys_of_webhooks_are_those_of_the_page():
    job = Job(id=5, state=JobState.PROCESSING, request=job_request(), created_at=0)
    writer = WebhookWriter(FileLinks(MemoryStore(), StorageConfig()).make)
    done = JobResult(keys=("generations/a.png",), nsfw=(False,), generation_time_s=1.5)
    failed = to_failure(errors.Cancelled())
    rows = [row for row in table_rows("webhooks.md") if len(row) == 3 and "`" in row[0]]
    for outcome, word in ((done, "`success`"), (failed, "`failed`")):
        told = {row[0].strip("`") for row in rows if row[1] in ("every message", word)}
        assert set(json.loads(await writer.write(job, outcome))) == told


def test_headers_of_webhooks_are_those_of_the_page():
    rows = {row[0].strip("`") for row in table_rows("webhooks.md") if len(row) == 2}
    assert rows >= set(Signer([new_secret()]).headers("msg_a", 1, "{}"))


SAMPLES = dict(re.findall(r"^```(\w+)\n(.*?)^```", PAGES["webhooks.md"], re.MULTILINE | re.DOTALL))
CALLS = {
    "python": (
        [sys.executable, "sample.py"],
        "import json, sys\n{0}\n"
        "headers, body, secret = json.loads(sys.argv[1])\n"
        "print(is_genuine(headers, body.encode(), secret))\n",
    ),
    "javascript": (
        ["node", "sample.mjs"],
        "{0}\nconst [headers, body, secret] = JSON.parse(process.argv[2]);\n"
        "console.log(isGenuine(headers, Buffer.from(body), secret));\n",
    ),
    "php": (
        ["php", "sample.php"],
        "{0}\n[$headers, $body, $secret] = json_decode($argv[1], true);\n"
        "echo is_genuine($headers, $body, $secret) ? 'true' : 'false';\n",
    ),
}
FORGERIES = {
    "genuine": (True, lambda headers, body: (headers, body)),
    "two secrets": (True, lambda headers, body: (_with(headers, "v1,AAAA "), body)),
    "body": (False, lambda headers, body: (headers, body.replace("5", "6"))),
    "id": (False, lambda headers, body: ({**headers, "webhook-id": "msg_b"}, body)),
    "signature": (False, lambda headers, body: ({**headers, "webhook-signature": "v1,AAAA"}, body)),
    "old": (False, None),
}


def _with(headers, before):
    return {**headers, "webhook-signature": before + headers["webhook-signature"]}


def test_page_has_a_sample_for_each_language():
    assert set(SAMPLES) == set(CALLS)


@pytest.mark.parametrize("language", CALLS)
@pytest.mark.parametrize("case", FORGERIES)
def test_sample_tells_genuine_messages_from_forged_ones(tmp_path, language, case):
    command, frame = CALLS[language]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    secret = "whsec_" + base64.b64encode(b"\xff\x00 a secret of 32 bytes, of any").decode()
    body = '{"id":5,"track_id":"\\u00e9"}'
    sent_at = int(time.time()) - (400 if case == "old" else 0)
    headers = Signer([secret]).headers("msg_a", sent_at, body)
    is_genuine, forge = FORGERIES[case]
    sent = (headers, body) if forge is None else forge(headers, body)
    (tmp_path / command[1]).write_text(frame.replace("{0}", SAMPLES[language]))
    done = subprocess.run(
        [*command, json.dumps([*sent, secret])],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.strip().lower() == str(is_genuine).lower()


def test_page_of_versions_is_about_this_one():
    assert f"page is about {serve_app.__version__}." in " ".join(PAGES["versions.md"].split())
    assert f"### To {serve_app.__version__}" in PAGES["versions.md"]


def test_images_that_pages_and_manifests_name_are_of_this_version():
    files = [*DOCS.glob("*.md"), *(DOCS.parent / "deploy").rglob("*.yaml")]
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    named = set(re.findall(r"dreamserve:(\d+\.\d+\.\d+)", text))
    assert named == {serve_app.__version__}


def test_changelog_has_a_section_of_this_version_below_that_of_what_is_to_come():
    text = (DOCS.parent / "CHANGELOG.md").read_text(encoding="utf-8")
    heads = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert heads[0] == "[Unreleased]"
    assert re.fullmatch(rf"\[{re.escape(serve_app.__version__)}\] - 20\d\d-\d\d-\d\d", heads[1])
    section = text.split(f"## {heads[1]}", 1)[1].split("\n## ")[0]
    assert re.findall(r"^### (.*)$", section, re.MULTILINE) == ["Added", "Changed", "Fixed"]
