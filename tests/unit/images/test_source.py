"""What a client may put into `init_image` and `mask_image`."""

import asyncio
import base64
import threading

import pytest

from serve_app import errors
from serve_app.images import source
from serve_app.images.inline import Inline, Writing
from serve_app.images.source import parse

DATA = bytes(range(256)) * 3 + b"\xff\xfb"  # uses all of both alphabets, needs padding
TEXT = base64.b64encode(DATA).decode()
LIMIT = 10_000


@pytest.mark.parametrize("url", ["http://a.test/x.png", "HTTPS://a.test", " https://a.test/\n"])
def test_url_is_kept_as_text(url):
    assert parse("init_image", url, LIMIT) == url.strip()


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        TEXT.rstrip("="),
        base64.urlsafe_b64encode(DATA).decode(),
        base64.urlsafe_b64encode(DATA).decode().rstrip("="),
        "\r\n".join(TEXT[at : at + 76] for at in range(0, len(TEXT), 76)),
        f"\n {TEXT} \n",
        f"data:image/png;base64,{TEXT}",
        f"DATA:IMAGE/PNG;BASE64,{TEXT}",
        f"data:;base64,{TEXT}",
        f"data:image/jpeg;charset=utf-8;base64,{TEXT}",
        "data:image/png;base64," + TEXT.replace("+", "%2B").replace("=", "%3D"),
    ],
    ids=[
        "plain",
        "no_padding",
        "url_alphabet",
        "url_alphabet_no_padding",
        "wrapped",
        "surrounded",
        "data_uri",
        "upper_case",
        "no_type",
        "parameters",
        "percent",
    ],
)
def test_inline_data_is_decoded(text):
    assert parse("init_image", text, LIMIT) == DATA


def test_file_of_a_form_is_decoded_as_text_is():
    data = memoryview(TEXT.encode())
    assert parse("init_image", Inline(data, Writing.TEXT), LIMIT) == DATA
    with pytest.raises(errors.InvalidImage, match="mask_image") as caught:
        parse("mask_image", Inline(data, Writing.TEXT), len(DATA) - 1)
    assert caught.value.field == "mask_image"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "ftp://a.test/x.png",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "blob:https://a.test/1",
        "a.test/x.png",
        "C:\\pictures\\x.png",
        "null!",
        "data:image/png,abc",
        "data:image/svg+xml;utf8,<svg/>",
        "data:image/png;base64",
        "data:image/png;base64,",
        "data:" + "x" * 300 + ";base64,AAAA",
        "A",
        "AAAAA",
        "AA=A",
        "====",
        "Ünïcode",
        "\ud800",
        "AAAA\x00",
        "<svg xmlns='http://www.w3.org/2000/svg'/>",
    ],
)
def test_anything_else_is_refused_by_name(text):
    with pytest.raises(errors.InvalidImage) as caught:
        parse("mask_image", text, LIMIT)
    assert list(caught.value.fields) == ["mask_image"]
    assert "mask_image" in caught.value.public_message


def test_data_over_the_limit_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(base64, "b64decode", lambda *args, **kwargs: pytest.fail("decoded"))
    with pytest.raises(errors.InvalidImage, match="over 1000 bytes"):
        parse("init_image", "A" * 2000, 1000)


def test_data_of_exactly_the_limit_passes():
    assert len(parse("init_image", base64.b64encode(bytes(1000)).decode(), 1000)) == 1000


@pytest.mark.parametrize(
    ("picture", "is_beside"),
    [
        ("https://a.test/x.png", False),
        ("A" * 16 * 1024, False),
        ("A" * (16 * 1024 + 1), True),
        (Inline(memoryview(TEXT.encode()), Writing.TEXT), True),
    ],
    ids=["url", "short", "long", "inline"],
)
async def test_what_takes_long_is_read_beside_the_event_loop(monkeypatch, picture, is_beside):
    readers = []

    def parse_here(*given):
        readers.append(threading.current_thread())
        return given

    monkeypatch.setattr(source, "parse", parse_here)
    assert await source.read("init_image", picture, LIMIT) == ("init_image", picture, LIMIT)
    assert (readers != [threading.main_thread()]) is is_beside
    assert readers[0].name.startswith("picture_" if is_beside else "MainThread")


async def test_two_clients_at_once_are_read_beside_the_event_loop(monkeypatch):
    begun, may_end = [], threading.Event()

    def parse_here(field, *_):
        begun.append(field)
        assert may_end.wait(30)

    monkeypatch.setattr(source, "parse", parse_here)
    data = Inline(memoryview(b""), Writing.TEXT)
    reads = [asyncio.create_task(source.read(str(field), data, LIMIT)) for field in range(4)]
    while len(begun) < 2:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    assert begun == ["0", "1"]
    may_end.set()
    await asyncio.gather(*reads)
