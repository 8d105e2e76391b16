"""Generated bodies: whatever comes, the answer is the API's own and shows no secret.

Two makers of bodies: hypothesis, slow and good at cutting a failure down to its core, and a plain
random one that it only seeds, fast enough for hundreds of bodies per call in every test run.
"""

import asyncio
import contextlib
import json
import math
import random
import string
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app import errors
from serve_app.api.requests import body
from serve_app.api.requests.scheduler import SCHEDULERS
from serve_app.api.requests.schemas import (
    ControlNetBody,
    FetchBody,
    GenerationBody,
    KeyBody,
    OutpaintBody,
    ReloadBody,
)
from serve_app.api.routes.helper import CheckBody, CropBody, DeleteBody, UrlBody
from serve_app.config import HttpConfig, LoggingConfig
from serve_app.telemetry import logging
from tests.asgi import send
from tests.stalls import MAX_STALL_S, least_stalls

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("frozen")]

SECRET = "sk_live_canary_0123456789"
PICTURE = "cGljdHVyZSBjYW5hcnk="  # inline data, which no reply repeats
PICTURES = (
    "init_image", "mask_image", "ip_adapter_image", "control_image", "image", "base64_string",
)  # fmt: skip
NO_STATUS = ("nsfw_image_check", "schedulers_list")
STATES = {"success", "processing", "failed", "error", "ok"}
PER_SEED = 100
MEDIA_TYPES = (
    "application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=b",
)  # fmt: skip

CASES = {
    **{
        f"/api/v4/dreambooth{suffix}": GenerationBody
        for suffix in ("", "/text2img", "/img2img", "/inpaint")
    },
    **{f"/api/v6/images/{kind}": GenerationBody for kind in ("text2img", "img2img", "inpaint")},
    **{
        f"/api/v7/images/{kind}": GenerationBody
        for kind in ("text-to-image", "image-to-image", "inpaint")
    },
    **{
        f"/api/{family}/{call}{suffix}": FetchBody
        for family in ("v4/dreambooth", "v6/images", "v7/images")
        for call in ("fetch", "cancel")
        for suffix in ("", "/{request_id}")
    },
    "/api/v4/dreambooth/model_list": KeyBody,
    "/api/v4/dreambooth/model_reload": ReloadBody,
    "/api/v6/images/model_reload": ReloadBody,
    "/api/v1/enterprise/schedulers_list": KeyBody,
    "/api/v4/dreambooth/text2video": KeyBody,
    "/api/v5/controlnet": ControlNetBody,
    "/api/v6/images/controlnet": ControlNetBody,
    "/api/v3/base64_crop": CropBody,
    "/api/v6/base64_to_url": UrlBody,
    "/api/v6/image_editing/base64_to_url": UrlBody,
    "/api/v3/nsfw_image_check": CheckBody,
    "/api/v1/enterprise/nsfw_image_check": CheckBody,
    "/api/v3/delete_image": DeleteBody,
    "/api/v3/system_load": KeyBody,
    "/api/v6/image_editing/outpaint": OutpaintBody,
    "/api/v4/dreambooth/events/{request_id}": FetchBody,
}
GOOD = {
    "model_id": "your_model_id", "prompt": "a", "init_image": "http://a.b/c",
    "mask_image": "aGk=", "image": "aGk=", "base64_string": "aGk=", "request_id": 13446970,
    "controlnet_model": "canny",
}  # fmt: skip

_texts = st.text(st.characters(codec=None), max_size=40) | st.sampled_from(
    ["", "null", "NaN", "1e999", "yes", "no", "abc", "\0", "\ud800", "../../etc/passwd", "[]", "-1"]
)
_numbers = st.integers() | st.floats() | st.integers(min_value=-(10**40), max_value=10**40)
_likely = st.sampled_from(
    ["512", 512, 64, "1", 4, "30", 7.5, 0.7, "0.45,0.55", "a,b", True, False, *SCHEDULERS[:3]]
)
_values = st.recursive(
    st.none() | st.booleans() | _numbers | _texts | _likely,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=6,
)


def bodies(model):
    names = st.sampled_from([*model.model_fields, "clipskip", "request_id", "model_id"]) | _texts
    return st.tuples(st.booleans(), st.dictionaries(names, _values, max_size=8)).map(
        lambda drawn: (GOOD if drawn[0] else {}) | drawn[1] | {"key": SECRET}
    )


class Bodies:
    """Random bodies for one call, from a seed."""

    TEXTS = (
        "", "null", "NaN", "1e999", "yes", "no", "\0", "\ud800", "../../etc/passwd", "-1", "2",
        "a, b", "0.45,0.55", "contrast-fix", "kl-f8", "anime",
        "<lora:yae-miko:0.5> a", "<lora:\0:1:2>", "a AND [b|c] (d:1.2)", "dpmsolver+++", "https://a.b/c?d",
        "http://[", *SCHEDULERS[:3],
    )  # fmt: skip
    NUMBERS = (0, 1, 2, 4, 8, 64, 256, 512, 1023, 0.7, 7.5, -1, 1e300, math.nan, math.inf)

    def __init__(self, model, seed):
        self.random = random.Random(seed)
        self.names = [*model.model_fields, "clipskip", "request_id", "model_id"]

    def body(self):
        draw = self.random
        names = draw.choices(self.names, k=draw.randrange(7))
        if draw.random() < 0.2:
            names.append(self.text())
        base = GOOD if draw.random() < 0.7 else {}
        return base | {name: self.field(name) for name in names} | {"key": SECRET}

    def field(self, name):
        if name in PICTURES and self.random.random() < 0.5:
            return self.random.choice((PICTURE, f"data:image/png;base64,{PICTURE}"))
        return self.value()

    def value(self, depth=0):
        draw = self.random
        kind = draw.randrange(8 if depth < 3 else 6)
        if kind == 6:
            return [self.value(depth + 1) for _ in range(draw.randrange(4))]
        if kind == 7:
            return {self.text(): self.value(depth + 1) for _ in range(draw.randrange(3))}
        simple = (
            lambda: draw.choice((None, True, False)),
            lambda: draw.choice(self.NUMBERS),
            lambda: draw.randrange(-(10 ** draw.randrange(1, 41)), 10**20),
            lambda: draw.choice(self.TEXTS),
            lambda: draw.choice(self.TEXTS),
            self.text,
        )
        return simple[kind]()

    def text(self):
        draw = self.random
        alphabet = draw.choice((string.printable, "éß漢🎨\u202e\ufeff", "\0\x1b\ud800\udfff'\"<>"))
        return "".join(draw.choices(alphabet, k=draw.randrange(20)))

    def part(self):
        """A part of a path."""
        return quote(self.text(), safe="", errors="replace")

    def written(self, fields):
        """The body and its type: mostly JSON, else one of the two forms."""
        kind = self.random.random()
        if kind < 0.8:
            return json.dumps(fields).encode(), "application/json"
        texts = [(name, one) for name, value in fields.items() for one in self.items(value)]
        if kind < 0.9:
            body = urlencode(texts, errors="replace").encode()
            return body, "application/x-www-form-urlencoded"
        return self.parts(texts), "multipart/form-data; boundary=b"

    def items(self, value):
        return value if isinstance(value, list) else [value]

    def parts(self, texts):
        data = b""
        for name, text in texts:
            brackets = "[]" * (self.random.random() < 0.1)
            kind = '; filename="a.png"' * (self.random.random() < 0.3)
            head = f'--b\r\nContent-Disposition: form-data; name="{name}{brackets}"{kind}\r\n\r\n'
            data += f"{head}{text}\r\n".encode(errors="replace")
        return data + b"--b--\r\n"


def judge(path, status, text):
    reply = json.loads(text)
    assert status < 500, text
    if isinstance(reply, dict):
        known = reply["status"] in STATES if "status" in reply else path.endswith(NO_STATUS)
        assert known, text
        assert reply.get("reason") != "internal", text
    assert SECRET not in text
    assert PICTURE not in text
    assert "Traceback" not in text


@pytest.mark.parametrize("num_bodies", [300, pytest.param(2000, marks=pytest.mark.long)])
@pytest.mark.parametrize(("path", "model"), CASES.items(), ids=list(CASES))
def test_random_bodies_are_answered_without_a_fault(service, shared, path, model, num_bodies):
    logging.configure(LoggingConfig(level="ERROR"))  # a line per call costs as much as the call

    @settings(max_examples=num_bodies // PER_SEED)
    @given(st.integers(0, 2**64 - 1))
    def check(seed):
        async def call_all():
            maker = Bodies(model, seed)
            service.jobs.clear()
            for _ in range(PER_SEED):
                address = path.replace("{request_id}", maker.part() or "1")
                judge(path, *await send(shared[1], address, *maker.written(maker.body())))

        _, stalls = asyncio.run(least_stalls(call_all))
        assert stalls.longest_s <= MAX_STALL_S

    check()


async def test_random_bodies_go_to_every_call(api):
    paths = (await api.http.get("/openapi.json")).json()["paths"]
    served = {path for path in paths if path.startswith("/api/")}
    old = {path for path in served if path.startswith("/api/v3/")}  # V4 below another path
    as_v4 = {path.replace("/api/v3/", "/api/v4/").replace("v4/fetch", "v4/dreambooth/fetch")
             for path in old - set(CASES)}  # fmt: skip
    assert served - old <= set(CASES)
    assert as_v4 <= set(CASES)


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/api/v4/dreambooth/inpaint", "/api/v3/base64_crop"])
def test_any_body_is_answered_without_a_fault(open_api, path):
    with asyncio.Runner() as runner:
        api = open_api()

        @settings(max_examples=200)
        @given(bodies(CASES[path]))
        def check(sent):
            answer = runner.run(api.post(path, sent))
            judge(path, answer.status_code, answer.text)

        check()
        runner.run(api.http.aclose())


@settings(max_examples=200)
@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode()))
def test_any_bytes_parse_or_are_refused(data):
    for content_type in MEDIA_TYPES:
        with contextlib.suppress(errors.InvalidJson):
            assert isinstance(body.parse(bytearray(data), content_type, HttpConfig()), dict)
