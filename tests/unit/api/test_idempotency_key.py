"""Which calls count as repeats of one another."""

import pytest

from serve_app import errors
from serve_app.api.requests.idempotency import read

PATH = "/api/v4/dreambooth"
FIELDS = {"key": "sd_live_a", "prompt": "a cat", "steps": "30", "seed": None}


@pytest.mark.parametrize("header", [None, "", "  "])
def test_call_without_the_header_is_no_repeat(header):
    assert read(header, PATH, FIELDS) is None


@pytest.mark.parametrize("header", ["a" * 256, "a b", "é", "a\0b"], ids=ascii)
def test_bad_header_is_refused_by_name(header):
    with pytest.raises(errors.InvalidRequest) as caught:
        read(header, PATH, FIELDS)
    assert caught.value.field == "Idempotency-Key"


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (PATH + "/", FIELDS),
        (PATH, dict(reversed(FIELDS.items()))),
        (PATH, {**FIELDS, "key": "sd_live_b"}),
    ],
    ids=["slash", "order", "secret"],
)
def test_equal_calls_have_equal_digests(path, fields):
    assert read("k", path, fields) == read("k", PATH, FIELDS)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (PATH + "/inpaint", FIELDS),
        (PATH, {**FIELDS, "seed": 0}),
        (PATH, {**FIELDS, "steps": 30}),
        (PATH, {}),
        (PATH, {"prompt": "\ud800", "x": float("nan")}),
    ],
    ids=["path", "seed", "type", "empty", "odd"],
)
def test_other_calls_have_other_digests(path, fields):
    assert read("k", path, fields).digest != read("k", PATH, FIELDS).digest
