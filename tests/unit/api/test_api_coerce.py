"""One row per line of api-reference 5.2, and what is no line of it."""

import math

import pytest
from pydantic_core import PydanticCustomError
from starlette.datastructures import Headers

from serve_app.api.requests import coerce
from serve_app.api.requests.call import read_key


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("512", 512),
        (512, 512),
        (512.0, 512),
        (" 512 ", 512),
        ("512.0", 512),
        ("5e2", 512 - 12),
        ("-7", -7),
        ("9" * 30, int("9" * 30)),
    ],
)
def test_int_of_what_clients_send_is_read(value, expected):
    assert coerce.to_int(value) == expected


@pytest.mark.parametrize(
    "value", ["abc", "", "12px", "1_000", "١٢", "0x10", 1.5, "1.5", True, [1], {"a": 1}, "1" * 500]
)
def test_int_of_something_else_is_refused(value):
    with pytest.raises(PydanticCustomError, match="must be an integer"):
        coerce.to_int(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, "NaN", "Infinity", "-inf", "1e999", 1e400])
@pytest.mark.parametrize("read", [coerce.to_int, coerce.to_float, coerce.to_seed])
def test_number_that_is_not_finite_is_refused(read, value):
    with pytest.raises(PydanticCustomError, match="must be a finite number"):
        read(value)


@pytest.mark.parametrize(
    ("value", "expected"), [("7.5", 7.5), (7.5, 7.5), (7, 7.0), ("5", 5.0), (".5", 0.5)]
)
def test_float_of_what_clients_send_is_read(value, expected):
    assert coerce.to_float(value) == expected


@pytest.mark.parametrize("value", [10**400, "9" * 399])
def test_float_of_a_giant_is_refused(value):
    with pytest.raises(PydanticCustomError, match="is out of range"):
        coerce.to_float(value)


@pytest.mark.parametrize("value", ["yes", "YES", "true", True, 1, "1"])
def test_flag_of_a_yes_is_true(value):
    assert coerce.to_flag(value) is True


@pytest.mark.parametrize("value", ["no", "false", False, 0, "0", "off"])
def test_flag_of_a_no_is_false(value):
    assert coerce.to_flag(value) is False


@pytest.mark.parametrize("value", ["maybe", 2, 1.0, [], {}])
def test_flag_of_something_else_is_refused(value):
    with pytest.raises(PydanticCustomError, match="must be yes or no"):
        coerce.to_flag(value)


@pytest.mark.parametrize("value", [None, "", "null", "NULL", "  ", " null ", []])
def test_absent_value_is_told(value):
    assert coerce.is_absent(value)


@pytest.mark.parametrize("value", [0, False, "no", "nullable", "0", [None], {}])
def test_present_value_is_told(value):
    assert not coerce.is_absent(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        ("0", 0),
        (2**32 - 1, 2**32 - 1),
        (2**32, 0),
        (99999999999, 99999999999 % 2**32),
        ("123456789012345678901234567890", 123456789012345678901234567890 % 2**32),
        (-2, 2**32 - 2),
        (-1, None),
        ("-1", None),
    ],
)
def test_seed_is_reduced(value, expected):
    assert coerce.to_seed(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("contrast-fix,yae-miko", ("contrast-fix", "yae-miko")),
        ("a, b ,,null", ("a", "b")),
        (["a", "b"], ("a", "b")),
        ("a, None ,b", ("a", "b")),
        ("none", ()),
        (["a", None, "none"], ("a",)),
    ],
)
def test_names_are_split(value, expected):
    assert coerce.to_names(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0.45, 0.55", (0.45, 0.55)),
        (1, (1.0,)),
        ("0.7", (0.7,)),
        ([0.1, "0.2"], (0.1, 0.2)),
        ("None", ()),
        ([0.1, None], (0.1,)),
    ],
)
def test_strengths_are_split(value, expected):
    assert coerce.to_floats(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [("no", 1), ("None", 1), ("yes", 2), ("2", 2), (3, 3), (1, 1), (False, 1), (True, 2)],
)
def test_upscale_is_a_factor(value, expected):
    assert coerce.to_upscale(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a\0b", "ab"),
        ("a\ud800b", "a\ufffdb"),
        ("\udc00", "\ufffd"),
        (" cat ", "cat"),
        ("猫 🐈", "猫 🐈"),
    ],
)
def test_text_is_cleaned(value, expected):
    assert coerce.clean(value) == expected


LONGEST_URL = "https://a.example/".ljust(2048, "x")


@pytest.mark.parametrize(
    "value", ["https://a.example/x?y=1", "http://127.0.0.1:8080/hook", LONGEST_URL]
)
def test_url_of_a_webhook_is_kept(value):
    assert coerce.to_url(value) == value


@pytest.mark.parametrize(
    "value",
    ["ftp://a.example/", "/etc/passwd", "http://", "http://a:99999/", "http://[", "a b", 7,
     "http://a.example/\nx", "https://a.example/" + "x" * 3000, "https://a.example/ x",
     "https://a.example/\u200bx", "https://a.example/\x7fx", "https://a.example/".ljust(2049, "x")],
)  # fmt: skip
def test_url_of_something_else_is_refused(value):
    with pytest.raises(PydanticCustomError, match="must be a valid URL"):
        coerce.to_url(value)


@pytest.mark.parametrize(
    ("headers", "fields", "key"),
    [
        ({}, {"key": "k" * 512}, "k" * 512),
        ({}, {"key": "k" * 513}, None),
        ({"authorization": "Bearer b"}, {"key": "k" * 513}, "b"),
        ({"authorization": "Bearer b", "key": "h"}, {"key": "k"}, "k"),
        ({"authorization": "bearer b", "key": "h"}, {"key": " "}, "b"),
        ({"authorization": "Basic b", "key": "h"}, {"key": 7}, "h"),
        ({"authorization": "Bearer", "key": " h "}, {}, "h"),
        ({"authorization": "Bearer"}, {}, None),
    ],
)
def test_key_is_the_first_that_is_one(headers, fields, key):
    assert read_key(fields, Headers(headers)) == key


@pytest.mark.parametrize(
    "value",
    ["order-7", 7, 1.5, None, {" a ": [" b\n"]}, True, "  ", "x" * 4094, "é" * 4094],
    ids=["text", "int", "float", "null", "blanks", "bool", "blank", "longest", "longest-not-ascii"],
)
def test_track_id_is_kept(value):
    assert coerce.to_json(value) == value


def test_track_id_loses_only_what_no_database_takes():
    assert coerce.to_json({"a\0": [" b\0", "c\ud800 "]}) == {"a": [" b", "c\ufffd "]}


@pytest.mark.parametrize(
    "value",
    ["x" * 4095, "é" * 4095, 2**64, [math.nan]],
    ids=["long", "long-not-ascii", "int", "nan"],
)
def test_track_id_that_no_reply_can_hold_is_refused(value):
    with pytest.raises(PydanticCustomError):
        coerce.to_json(value)


@pytest.mark.parametrize("others", [[], [None], ["", "None"]])
def test_image_in_a_list_of_one_is_taken(others):
    assert coerce.to_image(["https://a.example/x.png", *others]) == "https://a.example/x.png"


@pytest.mark.parametrize("value", ["none", "None", " NONE "])
def test_word_none_is_absent_where_a_field_names_something(value):
    assert coerce.optional(coerce.to_id)(value) is None


@pytest.mark.parametrize("value", ["none-xl", "nonesuch", 0, "0"])
def test_optional_reader_reads_all_else(value):
    assert coerce.optional(coerce.to_id)(value) == str(value)


@pytest.mark.parametrize(
    ("value", "expected"), [(7, "7"), (7.0, "7"), ("7", "7"), (1e15, "1" + "0" * 15), (1.5, "1.5")]
)
def test_id_of_a_number_is_its_text(value, expected):
    assert coerce.to_id(value) == coerce.to_request_id(value) == expected


@pytest.mark.parametrize("value", [True, [1], {"a": 1}])
@pytest.mark.parametrize("read", [coerce.to_id, coerce.to_request_id])
def test_id_of_something_else_is_refused(read, value):
    with pytest.raises(PydanticCustomError, match="must be a"):
        read(value)


@pytest.mark.parametrize("value", [["a", "b"], [1], 5, {}])
def test_image_of_something_else_is_refused(value):
    with pytest.raises(PydanticCustomError):
        coerce.to_image(value)


@pytest.mark.parametrize(("asked", "kept"), [("2", 2), (-4, -4), (None, 0)])
async def test_priority_is_that_of_the_call(api, text_body, asked, kept):
    request = await api.last_request("/api/v4/dreambooth", text_body | {"priority": asked})
    assert request.priority == kept
