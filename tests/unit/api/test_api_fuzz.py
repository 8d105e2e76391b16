"""Generated bodies: whatever comes, the answer is the API's own and shows no secret."""

import asyncio
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve_app import errors
from serve_app.api import body
from serve_app.api.helper import CheckBody, CropBody, DeleteBody, UrlBody
from serve_app.api.schemas import (
    SCHEDULERS,
    FetchBody,
    GenerationBody,
    KeyBody,
    ReloadBody,
)

SECRET = "sk_live_canary_0123456789"
NO_STATUS = {"/api/v3/nsfw_image_check"}
STATES = {"success", "processing", "failed", "error"}

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
    good = {"model_id": "your_model_id", "prompt": "a", "init_image": "http://a.b/c"}
    good["mask_image"] = "aGk="
    return st.tuples(st.booleans(), st.dictionaries(names, _values, max_size=8)).map(
        lambda drawn: (good if drawn[0] else {}) | drawn[1] | {"key": SECRET}
    )


CASES = [
    ("/api/v4/dreambooth", GenerationBody),
    ("/api/v4/dreambooth/img2img", GenerationBody),
    ("/api/v4/dreambooth/inpaint", GenerationBody),
    ("/api/v6/images/text2img", GenerationBody),
    ("/api/v7/images/image-to-image", GenerationBody),
    ("/api/v4/dreambooth/fetch", FetchBody),
    ("/api/v6/images/cancel", FetchBody),
    ("/api/v4/dreambooth/model_reload", ReloadBody),
    ("/api/v4/dreambooth/text2video", KeyBody),
    ("/api/v3/base64_crop", CropBody),
    ("/api/v6/base64_to_url", UrlBody),
    ("/api/v3/nsfw_image_check", CheckBody),
    ("/api/v3/delete_image", DeleteBody),
]
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "60"))  # per call; 2000 before a release


@pytest.mark.parametrize(("path", "model"), CASES, ids=[path for path, _ in CASES])
def test_any_body_is_answered_without_a_fault(open_api, path, model):
    with asyncio.Runner() as runner:
        api = open_api()

        @settings(
            max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        )
        @given(bodies(model))
        def check(sent):
            answer = runner.run(api.post(path, sent))
            reply = answer.json()
            assert answer.status_code < 500
            assert reply["status"] in STATES if "status" in reply else path in NO_STATUS
            assert reply.get("reason") != "internal", reply
            assert SECRET not in answer.text
            assert "Traceback" not in answer.text

        check()
        runner.run(api.http.aclose())


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode()))
def test_any_bytes_parse_or_are_refused(data):
    for is_form in (False, True):
        try:
            assert isinstance(body.parse(data, 16, is_form=is_form), dict)
        except errors.InvalidJson:
            continue
