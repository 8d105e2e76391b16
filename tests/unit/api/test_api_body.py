"""Bytes to fields: JSON, forms, and what is neither."""

import asyncio
import math
import threading

import pytest
from starlette.requests import ClientDisconnect, Request

from serve_app import errors
from serve_app.api.requests import body
from serve_app.config import HttpConfig
from serve_app.images.inline import Inline

JSON, FORM = "application/json", "application/x-www-form-urlencoded"
HTTP = HttpConfig(max_fields_bytes=512 * 1024)
PICTURE = b"iVBORw0KGgo" * 50_000


def parse(data, content_type=JSON, http=HTTP):
    return body.parse(bytearray(data), content_type, http)


def request(data, content_type, *, leaves=False):
    """A request whose body comes in pieces of 64 KiB, as from a socket."""
    pieces = [bytes(data[at : at + 65536]) for at in range(0, len(data), 65536)] or [b""]

    async def receive():
        if leaves and not pieces:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": pieces.pop(0), "more_body": leaves or bool(pieces)}

    headers = [(b"content-type", content_type.encode())]
    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


def test_json_object_is_read():
    assert parse(b'{"prompt": "a", "seed": 1}') == {"prompt": "a", "seed": 1}


def test_seed_of_30_digits_stays_exact():
    assert parse(b'{"seed": ' + b"7" * 30 + b"}")["seed"] == int("7" * 30)


def test_nan_reaches_its_field():
    assert math.isnan(parse(b'{"strength": NaN}')["strength"])


def test_byte_order_mark_is_skipped():
    assert parse(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


def test_last_of_equal_keys_wins():
    assert parse(b'{"a": 1, "a": 2}') == {"a": 2}


def test_line_breaks_inside_of_a_string_are_read():
    """As `curl -d "{\\"init_image\\": \\"$(base64 a.png)\\"}"` sends them."""
    assert parse(b'{"init_image": "iVBO\nRw0K\r\n"}') == {"init_image": "iVBO\nRw0K\r\n"}


@pytest.mark.parametrize("content_type", [JSON, FORM])
def test_empty_body_has_no_fields(content_type):
    assert parse(b"", content_type) == {}
    assert parse(b" \n") == {}


@pytest.mark.parametrize("begin", [b"{", b" \n{", b"\xef\xbb\xbf{"])
def test_json_that_claims_to_be_a_form_is_json(begin):
    assert parse(begin + b'"a": "b=c&d"}', FORM) == {"a": "b=c&d"}


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
        pytest.param(b'{"a": [' + b"1," * 200_000 + b"1]}", id="many commas"),
        pytest.param(b'{"a": [' + b"1," * 6_000 + b"1]}", id="many values"),
        pytest.param(b'{"seed": ' + b"7" * 5000 + b"}", id="5000 digits"),
        pytest.param(b"{'a': 1}", id="single quotes"),
        pytest.param(b'{"a": 1}{"b": 2}', id="two objects"),
        pytest.param(b'{"a": "' + PICTURE, id="picture cut off"),
        pytest.param(b'{"a": "' + PICTURE + b'"}"', id="picture and more"),
        pytest.param(b'["' + PICTURE + b'"]', id="picture alone"),
        pytest.param(b'{"' + b'"' * 600_000, id="quotes"),
        pytest.param(b'{"' + b'\\"' * 300_000 + b'"}', id="escaped quotes"),
    ],
)
def test_body_that_is_no_object_is_refused(data):
    with pytest.raises(errors.InvalidJson):
        parse(data)


@pytest.mark.parametrize(("depth", "is_fine"), [(16, True), (17, False)])
def test_depth_is_limited(depth, is_fine):
    data = b'{"a":' * depth + b"1" + b"}" * depth
    if is_fine:
        assert parse(data)
    else:
        with pytest.raises(errors.InvalidJson):
            parse(data)


@pytest.mark.parametrize("place", ["first", "last"])
def test_picture_in_a_large_body_stays_where_it_is(place):
    data = bytearray(b'{"init_image":"' + PICTURE + b'","prompt":"a"}')
    if place == "last":
        data = bytearray(b'{"prompt":"a","init_image":"' + PICTURE + b'"}')
    fields = body.parse(data, JSON, HTTP)
    picture = fields["init_image"]
    assert fields == {"prompt": "a", "init_image": picture}
    assert isinstance(picture, Inline)
    assert picture.view.obj is data
    assert bytes(picture.view) == PICTURE


def test_pictures_in_a_list_are_found():
    fields = parse(b'{"init_image":["' + PICTURE + b'", "b"], "o": {"p": "' + PICTURE + b'"}}')
    assert [type(item) for item in fields["init_image"]] == [Inline, str]
    assert isinstance(fields["o"]["p"], Inline)


def test_text_besides_pictures_is_limited():
    with pytest.raises(errors.BodyTooLarge):
        parse(b'{"prompt": "' + b"a" * 100_000 + b'"' + b" " * 500_000 + b"}")


@pytest.mark.parametrize("written", [b"\\u00e9", "é".encode(), b"\\ud83c\\udfa8", "🎨".encode()])
def test_longest_prompt_is_no_picture_however_it_is_written(written):
    prompt = written * 10_000
    fields = parse(b'{"prompt": "' + prompt + b'", "init_image": "' + PICTURE + b'"}')
    assert len(fields["prompt"]) == 10_000


def test_digests_stand_for_the_pictures():
    fields = parse(b'{"a": ["' + PICTURE + b'", 1], "b": "' + PICTURE + b'", "c": "d"}')
    digests = body.digested(fields)
    assert digests == {"a": [digests["b"], 1], "b": digests["b"], "c": "d"}
    other = parse(b'{"b": "A' + PICTURE + b'"}')
    assert body.digested(other)["b"] != digests["b"]


@pytest.mark.parametrize(("length", "thread"), [(1_000, "MainThread"), (20_000, "body")])
async def test_long_body_is_read_beside_the_event_loop(monkeypatch, length, thread):
    names = []

    def note_thread(*_args):
        names.append(threading.current_thread().name)
        return {}

    monkeypatch.setattr(body, "parse", note_thread)
    await body.read(request(b" " * length, JSON), HTTP)
    assert names[0].startswith(thread)


async def test_form_has_a_limit_of_its_own():
    http = HttpConfig(max_form_bytes=100_000)
    with pytest.raises(errors.BodyTooLarge):
        await body.read(request(b"a=" + b"b" * 200_000, FORM), http)
    json_body = b'{"prompt": "' + b"b" * 200_000 + b'"}'
    assert await body.read(request(json_body, FORM), http)  # as `curl -d` sends it


async def test_client_that_leaves_while_it_sends_is_told_apart():
    with pytest.raises(ClientDisconnect):
        await body.read(request(b"{", JSON, leaves=True), HTTP)


async def test_no_more_bytes_wait_for_the_parsers_than_may_arrive(monkeypatch):
    goes_on = threading.Event()
    monkeypatch.setattr(body, "parse", lambda *_: goes_on.wait(10) and {})
    http = HttpConfig(max_arriving_bytes=250_000)
    first = [asyncio.create_task(body.read(request(b"a" * 100_000, JSON), http)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(errors.Overloaded):
        await body.read(request(b"a" * 100_000, JSON), http)
    goes_on.set()
    assert await asyncio.gather(*first) == [{}, {}]
    assert await body.read(request(b"a" * 100_000, JSON), http) == {}
