"""What a file says of its own price: scans, parts and canvas, each told by the format's rules."""

import time

import pytest

from serve_app import errors
from serve_app.config import ImagesConfig
from serve_app.images import price
from serve_app.images.decode import decode
from tests.picture_files import HOSTILE, PHOTO, SEEDS, chunk, exif, file, jpeg, png, rows, scans

LARGE = ["webp_of_16384", "webp_of_16777216", "webp_lossy_of_16383", "webp_lossless_of_16384"]


def check(data: bytes, **limits) -> None:
    price.check("mask_image", data, ImagesConfig(**limits))


def refused(data: bytes, message: str, **limits) -> None:
    with pytest.raises(errors.InvalidImage, match=f"The mask_image .*{message}") as caught:
        check(data, **limits)
    assert caught.value.field == "mask_image"


@pytest.mark.parametrize(
    ("data", "number"),
    [
        (jpeg(), 1),
        (jpeg(restart_marker_blocks=1), 1),
        # What libjpeg's jcparam.c makes: 10 for YCbCr, else 2 and 4 for each component.
        (jpeg(progressive=True), 10),
        (jpeg(progressive=True, mode="L"), 6),
        (jpeg(progressive=True, mode="CMYK"), 18),
        (scans(90, 16, 16, progressive=True), 100),
        (scans(90, 16, 16), 91),
    ],
)
def test_scans_of_a_jpeg_are_counted(data, number):
    check(data, max_scans=number)
    if number > 1:
        refused(data, f"has more than {number - 1} scans", max_scans=number - 1)


def test_fill_bytes_and_rubbish_hide_no_scan():
    plain = scans(50, 16, 16)
    last = plain.rindex(b"\xff\xda")
    hidden = plain[:last].replace(b"\xff\xda", b"rubbish\xff\x00\xff\xff\xff\xda") + plain[last:]
    for data in (plain, hidden):
        with pytest.raises(errors.InvalidImage, match="scans"):
            check(data, max_scans=50)


def test_runs_of_fill_bytes_take_time_that_grows_with_the_file():
    begun = time.process_time()
    check(b"\xff\xd8" + b"\xff" * 2_000_000 + b"\x00")
    assert time.process_time() - begun < 5  # with their square, a day


def test_scans_of_a_thumbnail_do_not_count():
    data = jpeg(exif(b"\xff\xda\x00\x02" * 500), segment_of_a_comment())
    check(data, max_scans=1)
    assert decode("init_image", data, ImagesConfig(max_scans=1), 16).size == (16, 16)


def segment_of_a_comment() -> bytes:
    return b"\xff\xfe\x00\x06\xff\xda\xff\xda"


def test_what_follows_the_end_of_a_jpeg_does_not_count():
    check(jpeg() + b"\xff\xda\x00\x02" * 500, max_scans=1)


@pytest.mark.parametrize(
    ("data", "number"),
    [
        (png(8, 8, *[chunk(b"tEXt", b"k\x00v")] * 20, rows(8 * 25)), 23),
        (jpeg(*[exif(b"")] * 20), 20 + len(["APP0", "DQT", "DQT", "SOF", "4 DHT"]) + 3 + 1),
        (SEEDS["webp_animated"] + bytes(8) * 20, 2 + 3 + 20),
        (SEEDS["webp_animated"] + b"ODD \x03\x00\x00\x00xyz\x00" * 20, 2 + 3 + 20),
    ],
    ids=["png", "jpeg", "webp", "webp-padded"],
)
def test_parts_of_a_file_are_counted(data, number):
    check(data, max_parts=number)
    refused(data, f"has more than {number - 1} parts", max_parts=number - 1)


@pytest.mark.parametrize("name", LARGE)
def test_canvas_of_a_webp_is_judged_before_it_is_made(name):
    with pytest.raises(errors.InvalidImage, match="mask_image picture is too large"):
        check(HOSTILE[name])


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": b"II*\x00"}], ids=str)
def test_canvas_of_a_webp_is_read_as_pillow_does(options):
    data = file(PHOTO.convert("RGB").resize((77, 100)), "WEBP", **options)
    check(data, max_side_px=100, max_pixels=7700)
    for limits in ({"max_side_px": 99}, {"max_pixels": 7699}):
        refused(data, "picture is too large: at most", **limits)


@pytest.mark.parametrize(
    "data", [b"", b"GIF89a", b"RIFF", b"RIFF\x00\x00\x00\x00WEBP", b"\xff\xd8\xff"]
)
def test_what_says_nothing_of_its_price_passes(data):
    check(data, max_scans=1)
