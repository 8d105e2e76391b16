"""Pictures in the body of a call: what base64 means, however it is written and cut into windows."""

import base64
import json
from unittest import mock
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from serve_app import errors
from serve_app.images import inline
from serve_app.images.inline import Inline, Writing, read

DATA = bytes(range(256)) * 3 + b"\xff\xfb"  # uses all of both alphabets, needs padding
TEXT = base64.b64encode(DATA).decode()
LIMIT = 10_000


def picture(text, writing=Writing.TEXT):
    return Inline(memoryview(text if isinstance(text, bytes) else text.encode()), writing)


def in_json(text):
    """As PHP does: slashes are escaped."""
    return json.dumps(text)[1:-1].replace("/", "\\/")


def in_strict_json(text):
    """As .NET does: what HTML might misread is escaped."""
    return json.dumps(text)[1:-1].replace("+", "\\u002B").replace("=", "\\u003d")


WRITINGS = [
    (Writing.TEXT, str),
    (Writing.JSON, in_json),
    (Writing.JSON, in_strict_json),
    (Writing.FORM, quote_plus),
    (Writing.FORM, quote),
    (Writing.FORM, str),  # not percent-encoded at all, as by hand
]


def wrapped(text):
    return "\r\n".join(text[at : at + 76] for at in range(0, len(text), 76))


@settings(max_examples=300)
@given(
    st.binary(min_size=1, max_size=200),
    st.sampled_from(WRITINGS),
    st.sampled_from([str, wrapped, lambda text: text.rstrip("="), lambda text: f" {text}\n"]),
    st.sampled_from(["", "data:image/png;base64,", "DATA:;x=y;BASE64, "]),
    st.booleans(),
    st.integers(1, 9),
)
def test_base64_means_the_same_however_it_is_written(data, writing, style, head, for_urls, window):
    kind, write = writing
    encode = base64.urlsafe_b64encode if for_urls else base64.b64encode
    data = b"\x89PNG" + data
    text = encode(data).decode()
    assume(not text.endswith("+"))  # in a form a blank at the end, which is none of the text
    text = head + style(text)
    with mock.patch.multiple(inline, _WINDOW=window, _MAX_HEAD=32):
        assert read("init_image", picture(write(text), kind), LIMIT) == data


@pytest.mark.parametrize("head", ["", "data:image/png;base64,"])
def test_blank_inside_is_a_plus_that_went_through_a_form(head):
    """Each + of `TEXT` is sent as it is in a form, and comes out as a blank."""
    assert "+" in TEXT
    sent = head + TEXT
    assert read("a", picture(sent, Writing.FORM), LIMIT) == DATA
    assert read("a", picture(sent.replace("+", " ")), LIMIT) == DATA
    assert read("a", picture(f"  {wrapped(sent.replace('+', ' '))} \t\n "), LIMIT) == DATA


@pytest.mark.parametrize("window", [4, 7, 64 * 1024])
@pytest.mark.parametrize("number", [1, 2, 3, 5, 30])
def test_each_of_many_blanks_inside_is_a_plus_and_none_around(number, window):
    text = "iVBO" + "+" * 4 * number + "Rw=="
    sent = " " * number + text.replace("+", " ") + " " * number
    with mock.patch.multiple(inline, _WINDOW=window, _MAX_HEAD=8):
        assert read("a", picture(sent), LIMIT) == base64.b64decode(text)


@pytest.mark.parametrize("gap", ["\n", "\r\n", "\t", "\v\f", "\r\n\t"])
def test_line_breaks_and_tabs_inside_are_dropped(gap):
    assert read("a", picture(gap.join([gap, TEXT[:100], TEXT[100:], gap])), LIMIT) == DATA


def test_percent_encoded_data_uri_is_read():
    assert read("a", picture("data:image/png;base64," + quote(TEXT)), LIMIT) == DATA


@pytest.mark.parametrize("data", [b"", b" \n", b"\x89PNG"])
def test_file_is_taken_as_it_is(data):
    if data:
        assert read("a", picture(data, Writing.FILE), LIMIT) == data
    else:
        with pytest.raises(errors.InvalidImage, match="holds no data"):
            read("a", picture(data, Writing.FILE), LIMIT)


@pytest.mark.parametrize(
    "text",
    ["A", "AAAAA", "AA=A", "====", "AAA=BBBBCDDD", "AA==BBBB", "AA%41A", "%", "AAA%2", "AA\\", "é",
     "AAAA\0", "data:,AAAA", "data:image/png;base64", "data:image/png;base64,", "    ", "AAAA,AAAA",
     "data:" + "x" * 600 + ";base64,AAAA"],
)  # fmt: skip
@pytest.mark.parametrize("writing", [Writing.TEXT, Writing.JSON, Writing.FORM])
@pytest.mark.parametrize("window", [3, 65_536])
def test_anything_else_is_refused_by_name(text, writing, window):
    with (
        mock.patch.multiple(inline, _WINDOW=window),
        pytest.raises(errors.InvalidImage) as caught,
    ):
        read("mask_image", picture(text, writing), LIMIT)
    assert list(caught.value.fields) == ["mask_image"]


@pytest.mark.parametrize("size", [999, 1000, 1001, 1002, 5000])
@pytest.mark.parametrize("window", [10, 65_536])
@pytest.mark.parametrize("writing", [Writing.TEXT, Writing.JSON, Writing.FORM, Writing.FILE])
def test_limit_is_that_of_the_file(size, window, writing):
    sent = picture(
        bytes(size) if writing is Writing.FILE else base64.b64encode(bytes(size)), writing
    )
    with mock.patch.multiple(inline, _WINDOW=window):
        if size <= 1000:
            assert len(read("a", sent, 1000)) == size
        else:
            with pytest.raises(errors.InvalidImage, match="The a file is over 1000") as caught:
                read("a", sent, 1000)
            assert caught.value.field == "a"


def test_as_much_as_is_decoded_may_be_dropped_beside_the_head():
    text = "data:image/png;base64," + "\n".join(base64.b64encode(bytes(999)).decode())
    most = 512 + 2 * 1000 * 4 // 3
    assert len(read("a", picture(text.ljust(most, "\n")), 1000)) == 999
    with pytest.raises(errors.InvalidImage, match="over 1000 bytes"):
        read("a", picture(text.ljust(most + 2, "\n")), 1000)


@pytest.mark.parametrize("writing", list(Writing))
def test_size_is_judged_before_anything_is_decoded(monkeypatch, writing):
    def decode(*_args, **_options):
        raise AssertionError("decoded")

    for name in ("_unescaped", "_quads", "_text"):
        monkeypatch.setattr(inline, name, decode)
    with pytest.raises(errors.InvalidImage, match="over 1000 bytes"):
        read("a", picture(b"%41" * 10_000, writing), 1000)


def test_decoding_ends_where_the_file_is_too_large(monkeypatch):
    decoded = []

    def decode(text, **_options):
        decoded.append(len(text))
        return bytes(len(text) * 3 // 4)

    monkeypatch.setattr(base64, "b64decode", decode)
    with pytest.raises(errors.InvalidImage, match="over 300000 bytes"):
        read("a", picture(b"A" * 700_000), 300_000)
    assert sum(decoded) <= 400_000
