"""Bytes to fields: JSON, forms, and what is neither."""

import math

import pytest

from serve_app import errors
from serve_app.api import body

DEPTH = 16


def test_json_object_is_read():
    assert body.parse(b'{"prompt": "a", "seed": 1}', DEPTH) == {"prompt": "a", "seed": 1}


def test_seed_of_30_digits_stays_exact():
    assert body.parse(b'{"seed": ' + b"7" * 30 + b"}", DEPTH)["seed"] == int("7" * 30)


def test_nan_reaches_its_field():
    assert math.isnan(body.parse(b'{"strength": NaN}', DEPTH)["strength"])


def test_byte_order_mark_is_skipped():
    assert body.parse(b'\xef\xbb\xbf{"a": 1}', DEPTH) == {"a": 1}


def test_last_of_equal_keys_wins():
    assert body.parse(b'{"a": 1, "a": 2}', DEPTH) == {"a": 2}


def test_empty_body_has_no_fields():
    assert body.parse(b" \n", DEPTH) == {}


def test_form_is_read():
    fields = body.parse(b"prompt=a+cat&width=512&seed=&key=k%2B1", DEPTH, is_form=True)
    assert fields == {"prompt": "a cat", "width": "512", "seed": "", "key": "k+1"}


def test_json_that_claims_to_be_a_form_is_json():
    assert body.parse(b'{"a": "b=c&d"}', DEPTH, is_form=True) == {"a": "b=c&d"}


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"hello", id="no json"),
        pytest.param(b'{"a": 1', id="cut off"),
        pytest.param(b"[1]", id="list"),
        pytest.param(b'"a"', id="text"),
        pytest.param(b"null", id="null"),
        pytest.param(b'{"a": "\xff"}', id="not utf-8"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b'{"a":' * 5000 + b"1" + b"}" * 5000, id="deep and whole"),
        pytest.param(b'{"a": [' + b"1," * 200_000 + b"1]}", id="many values"),
        pytest.param(b'{"seed": ' + b"7" * 5000 + b"}", id="5000 digits"),
        pytest.param(b"{'a': 1}", id="single quotes"),
        pytest.param(b'{"a": 1}{"b": 2}', id="two objects"),
    ],
)
def test_body_that_is_no_object_is_refused(data):
    with pytest.raises(errors.InvalidJson):
        body.parse(data, DEPTH)


@pytest.mark.parametrize(("depth", "is_fine"), [(16, True), (17, False)])
def test_depth_is_limited(depth, is_fine):
    data = b'{"a":' * depth + b"1" + b"}" * depth
    if is_fine:
        assert body.parse(data, DEPTH)
    else:
        with pytest.raises(errors.InvalidJson):
            body.parse(data, DEPTH)


def test_form_with_very_many_fields_is_refused():
    with pytest.raises(errors.InvalidJson):
        body.parse(b"a=1&" * 1000, DEPTH, is_form=True)
