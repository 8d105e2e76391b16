"""Forms: what browsers, curl and PHP send, compared with other readers and writers of forms."""

import asyncio
import contextlib
import gc
import json
import weakref
from unittest import mock
from urllib.parse import parse_qsl, urlencode

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartParser

from serve_app import errors
from serve_app.api.requests import body, form
from serve_app.config import HttpConfig
from serve_app.images.inline import Inline, Writing

FORM = "application/x-www-form-urlencoded"
HTTP = HttpConfig()
PNG = bytes.fromhex("89504e470d0a1a0a") + bytes(range(256))
LONG = 200_000

_texts = st.text(st.characters(codec="utf-8"), max_size=20)


def parse(data, content_type=FORM, http=HTTP):
    return body.parse(bytearray(data), content_type, http)


def multipart(*parts):
    """Write parts of (name, content) or (name, file name, content)."""
    data = b""
    for name, *file_name, content in parts:
        head = f'Content-Disposition: form-data; name="{name}"'
        head += "".join(f'; filename="{text}"\r\nContent-Type: image/png' for text in file_name)
        data += b"--b\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n"
    return data + b"--b--\r\n", "multipart/form-data; boundary=b"


def content(value):
    return bytes(value.view) if isinstance(value, Inline) else value


def test_form_is_read():
    fields = parse(b"prompt=a+cat&width=512&seed=&key=k%2B1")
    assert fields == {"prompt": "a cat", "width": "512", "seed": "", "key": "k+1"}


@settings(max_examples=200)
@given(st.lists(st.tuples(_texts, _texts), max_size=8), st.binary(max_size=20))
def test_form_is_read_as_the_standard_library_does(pairs, noise):
    for data in (urlencode(pairs).encode(), noise):
        try:
            expected = dict(parse_qsl(data.decode(), keep_blank_values=True))
        except UnicodeDecodeError:
            continue
        if not any(name.endswith("]") for name in expected) and not data.startswith(b"{"):
            assert parse(data) == expected


@pytest.mark.parametrize("name", ["init_image", "init_image%5B%5D"])
def test_long_value_of_a_form_stays_where_it_is(name):
    data = bytearray(f"prompt=a&{name}={'iVBO%2B' * LONG}&key=k".encode())
    fields = body.parse(data, FORM, HTTP)
    picture = fields["init_image"][0] if name.endswith("D") else fields["init_image"]
    assert (fields["prompt"], fields["key"]) == ("a", "k")
    assert (picture.writing, picture.view.obj) == (Writing.FORM, data)
    assert bytes(picture.view) == b"iVBO%2B" * LONG


@pytest.mark.parametrize(
    "data",
    [b"a=1&" * 201, b"&" * 300, b"x" * LONG, b"x" * LONG + b"=1", b"a=\xff", b"\xff" + b"=" * LONG],
    ids=["fields", "separators", "no name", "long name", "no utf-8", "no utf-8 name"],
)
def test_what_is_no_form_is_refused(data):
    with pytest.raises(errors.InvalidJson):
        parse(data)


def test_texts_of_a_form_are_limited():
    with pytest.raises(errors.BodyTooLarge):
        parse(b"&".join(b"a%d=" % number + b"b" * 100_000 for number in range(12)))


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([("l[]", "a"), ("l[]", "b")], {"l": ["a", "b"]}),
        ([("l[0]", "a"), ("l[1]", "b"), ("p", "c")], {"l": ["a", "b"], "p": "c"}),
        ([("l[]", "")], {"l": [""]}),
        ([("a", "1"), ("a", "2")], {"a": "2"}),
        ([("l", "z"), ("l[]", "a")], {"l": ["a"]}),
        (
            [("l[x]", "a"), ("[]", "b"), ("l[12345]", "c")],
            {"l[x]": "a", "[]": "b", "l[12345]": "c"},
        ),
    ],
    ids=["php", "http_build_query", "empty", "twice", "both", "no list"],
)
def test_names_with_brackets_make_lists(pairs, expected):
    assert parse(urlencode(pairs).encode()) == expected
    assert parse(*multipart(*((name, text.encode()) for name, text in pairs))) == expected


def test_parts_are_read():
    data, content_type = multipart(
        ("prompt", "a + é 100%41".encode()), ("init_image", "a.png", PNG), ("mask_image", "", b"")
    )
    fields = parse(data, content_type)
    assert (fields["prompt"], fields["mask_image"]) == ("a + é 100%41", "")
    assert (fields["init_image"].writing, content(fields["init_image"])) == (Writing.FILE, PNG)


def test_long_text_of_a_part_stays_where_it_is():
    picture = parse(*multipart(("init_image", b"iVBO" * LONG)))["init_image"]
    assert (picture.writing, content(picture)) == (Writing.TEXT, b"iVBO" * LONG)


@settings(max_examples=100)
@given(
    st.dictionaries(st.text('abc_é "\\;=', min_size=1, max_size=9), _texts, max_size=4),
    st.dictionaries(st.text("xyz", min_size=1, max_size=9), st.binary(max_size=40), max_size=3),
)
def test_parts_are_read_as_starlette_does_when_httpx_writes_them(texts, files):
    files = {name: ("f.png", data) for name, data in files.items()}
    sent = httpx2.Request("POST", "http://a.b", data=texts, files=files or {"x": ("f", b"y")})
    data = sent.read()

    async def starlette_form():
        async def stream():
            yield data

        items = await MultiPartParser(Headers(sent.headers), stream()).parse()
        read = {
            name: (await item.read()) or "" if isinstance(item, UploadFile) else item
            for name, item in items.items()
        }
        await items.close()
        return read

    fields = parse(data, sent.headers["content-type"])
    assert {name: content(value) for name, value in fields.items()} == asyncio.run(starlette_form())


@pytest.mark.parametrize(
    ("change", "content_type"),
    [
        (lambda data: data[:-8], None),
        (lambda data: data.replace(b"; name=", b"; nome="), None),
        (lambda data: data.replace(b"Content", b"C ntent"), None),
        (lambda data: data.replace(b"Content", b"A" * 9000), None),
        (lambda data: data.replace(b"--b\r\n", b"--b\r\nA: b\r\n" * 1, 1).replace(
            b"A: b\r\n", b"A: b\r\n" * 20), None),
        (lambda data: b"x" + data, None),
        (lambda data: data.replace(b"one", b"\xff"), None),
        (lambda data: data.replace(b"one", b"\r\n--b" * 300), None),
        (lambda data: data, "multipart/form-data"),
        (lambda data: data, 'multipart/form-data; boundary=""'),
        (lambda data: data, "multipart/form-data; boundary=" + "b" * 300),
        (lambda data: b"", "multipart/form-data; boundary=b"),
    ],
    ids=["cut off", "nameless", "bad header", "long header", "many headers", "no boundary",
         "no utf-8", "near boundaries", "none named", "empty named", "long named", "empty"],
)  # fmt: skip
def test_what_is_no_multipart_form_is_refused(change, content_type):
    data, ours = multipart(("a", b"one"))
    assert parse(data, ours) == {"a": "one"}
    with pytest.raises(errors.InvalidJson):
        parse(change(data), content_type or ours)


def test_parts_are_limited():
    http = HttpConfig(max_form_fields=3)
    assert len(parse(*multipart(*((f"a{n}", b"b") for n in range(3))), http=http)) == 3
    with pytest.raises(errors.InvalidJson):
        parse(*multipart(*((f"a{n}", b"b") for n in range(4))), http=http)
    with pytest.raises(errors.BodyTooLarge):
        parse(*multipart(*((f"a{n}", b"b" * 100_000) for n in range(12))))


def test_boundary_without_a_name_parts_nothing():
    data = b'--\r\nContent-Disposition: form-data; name="a"\r\n\r\none\r\n----\r\n'
    for named in ("", '; boundary=""'):
        with pytest.raises(errors.InvalidJson):
            parse(data, f"multipart/form-data{named}")


@pytest.mark.parametrize("before", [b"", b"\r\n", b"preamble\r\n"])
def test_very_many_parts_are_refused_before_they_are_parsed(before):
    data, content_type = multipart(*(("a", b"b") for _ in range(1000)))
    with (
        mock.patch.object(form, "MultipartParser", side_effect=AssertionError("parsed")),
        pytest.raises(errors.InvalidJson),
    ):
        parse(before + data, content_type)


@pytest.mark.parametrize("before", [b"", b"--b\r\n\r\nx"])
@pytest.mark.parametrize("blanks", [b" " * 300, b"\t" * 300])
def test_blanks_behind_a_boundary_are_refused_before_they_are_parsed(blanks, before):
    data = before + b"\r\n--b" + blanks + b"\r\n--b--\r\n"
    with (
        mock.patch.object(form, "MultipartParser", side_effect=AssertionError("parsed")),
        pytest.raises(errors.InvalidJson),
    ):
        parse(data, "multipart/form-data; boundary=b")


IMG2IMG = "/api/v4/dreambooth/img2img"
CALL = {"key": "", "model_id": "your_model_id", "prompt": "a cat"}


async def test_picture_can_come_as_a_file(api):
    answer = await api.http.post(IMG2IMG, data=CALL, files={"init_image": ("a.png", PNG)})
    assert answer.json()["status"] == "success", answer.text
    assert answer.json()["meta"]["init_image"] == ""
    ((field, picture),) = api.service.inputs
    assert (field, content(picture)) == ("init_image", PNG)


@pytest.mark.parametrize("as_parts", [False, True])
async def test_arrays_of_php_are_lists(api, as_parts):
    pairs = [*CALL.items(), ("lora_model[]", "contrast-fix"), ("lora_model[]", "yae-miko")]
    data, content_type = urlencode(pairs).encode(), FORM
    if as_parts:
        data, content_type = multipart(*((name, text.encode()) for name, text in pairs))
    answer = await api.http.post(
        "/api/v4/dreambooth", content=data, headers={"content-type": content_type}
    )
    assert answer.json()["status"] == "success", answer.text
    (job,) = api.service.jobs.values()
    assert [lora.id for lora in job.request.spec.loras] == ["contrast-fix", "yae-miko"]


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("prompt", "The prompt may not be greater than 10000 characters."),
        ("track_id", "The track id may not be greater than 4096 characters."),
        ("width", "The width must be an integer."),
        ("webhook", "The webhook must be a valid URL that starts with http:// or https://."),
        ("model_id", None),
    ],
)
@pytest.mark.parametrize("as_file", [False, True])
async def test_long_value_or_file_in_another_field_is_named(api, field, text, as_file):
    data = CALL | {field: "a" * LONG}
    files = {"x": ("x", b"y")}
    if as_file:
        files[field] = ("a.png", PNG)
        del data[field]
    reply = (await api.http.post("/api/v4/dreambooth", data=data, files=files)).json()
    assert reply["status"] == "error"
    if text is not None:
        assert reply["message"] == {field: [text]}


async def test_helper_call_takes_a_file(api):
    answer = await api.http.post("/api/v3/base64_crop", files={"image": ("a.png", PNG)})
    assert answer.json()["status"] == "success", answer.text
    ((field, picture, _),) = api.service.published
    assert (field, content(picture)) == ("image", PNG)


async def test_repeats_are_known_by_what_is_in_the_file(api):
    async def send(data):
        return (
            await api.http.post(
                IMG2IMG,
                data=CALL,
                files={"init_image": ("a.png", data)},
                headers={"idempotency-key": "one"},
            )
        ).json()

    first, again, other = await send(PNG), await send(PNG), await send(PNG + b"x")
    assert first["id"] == again["id"]
    assert other["reason"] == "invalid_request"


async def test_form_is_as_good_as_json(api):
    sent = json.loads(json.dumps(CALL)) | {"init_image": "iVBORw0KGgo="}
    answer = await api.http.post(IMG2IMG, data=sent)
    assert answer.json()["status"] == "success", answer.text


async def test_body_goes_while_the_call_is_held(api):
    api.service.never_answers = True
    files = {"init_image": ("a.png", PNG)}
    calling = asyncio.create_task(api.http.post(IMG2IMG, data=CALL, files=files))
    await api.service.held.wait()
    ((_, picture),) = api.service.inputs
    body_of_call = weakref.ref(picture.view)
    api.service.inputs.clear()
    del picture
    gc.collect()
    assert body_of_call() is None
    calling.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await calling
