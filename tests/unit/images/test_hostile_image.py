"""Files that are no pictures, broken pictures, and pictures that want to eat the machine."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from serve_app import errors
from serve_app.config import ImagesConfig
from serve_app.images.decode import decode

CONFIG = ImagesConfig()
SMALL = ImagesConfig(max_side_px=64, max_pixels=4096)


def file(image: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG file by hand: a header and the given chunks."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = b"".join([chunk(b"IHDR", header), *chunks, chunk(b"IEND", b"")])
    return b"\x89PNG\r\n\x1a\n" + body


def webp(width: int, height: int) -> bytes:
    """The header of a WebP file of any size, without pixels."""
    extended = struct.pack("<I", 0) + struct.pack("<I", width - 1)[:3]
    body = b"WEBPVP8X" + struct.pack("<I", 10) + extended + struct.pack("<I", height - 1)[:3]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def read(data: bytes, config: ImagesConfig = CONFIG, wanted_px: int = 512) -> Image.Image:
    return decode("init_image", data, config, wanted_px)


def gradient(mode: str = "RGB", width: int = 32, height: int = 16) -> Image.Image:
    ramp = np.linspace(0, 255, width * height).astype(np.uint8).reshape(height, width)
    return Image.merge("RGB", [Image.fromarray(ramp)] * 3).convert(mode)


NOISE = file(Image.effect_noise((64, 64), 90).convert("RGB"))
BOMB_ROWS = zlib.compress(bytes(50_000_000), 9)
HOSTILE = {
    "empty": b"",
    "text": b"hello",
    "html": b"<!doctype html><html><img src=x></html>",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
    "svg_xml": b"<?xml version='1.0'?><svg/>",
    "pdf": b"%PDF-1.4\n1 0 obj",
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "mp4": b"\x00\x00\x00\x18ftypmp42" + bytes(100),
    "zip": b"PK\x03\x04" + bytes(100),
    "gif": file(gradient("P"), "GIF"),
    "bmp": file(gradient(), "BMP"),
    "tiff": file(gradient(), "TIFF"),
    "ico": file(gradient(width=16), "ICO"),
    "jpeg2000_head": b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(50),
    "gif_polyglot": b"GIF89a" + NOISE,
    "png_signature_only": b"\x89PNG\r\n\x1a\n",
    "png_truncated": NOISE[: len(NOISE) // 2],
    "png_no_pixels": png(8, 8),
    "png_zero_size": png(0, 0),
    "png_50000": png(50_000, 50_000),
    "png_2_to_31": png(2**31 - 1, 2**31 - 1),
    "png_wide": png(30_000, 10),
    "png_100_megapixels": png(8192, 8192 + 4096),
    "png_bad_depth": png(8, 8, depth=3),
    "png_bad_rows": png(8, 8, chunk(b"IDAT", b"no deflate stream")),
    "png_broken_check": NOISE[:60] + b"\x00\x01" + NOISE[62:],
    "png_text_bomb": png(8, 8, chunk(b"zTXt", b"k\x00\x00" + BOMB_ROWS)),
    "png_profile_bomb": png(8, 8, chunk(b"iCCP", b"k\x00\x00" + BOMB_ROWS)),
    "png_chunk_length": png(8, 8)[:33] + b"\xff\xff\xff\xffIDAT",
    "jpeg_truncated": file(Image.effect_noise((64, 64), 90), "JPEG")[:600],
    "jpeg_start_only": b"\xff\xd8\xff\xe0",
    "jpeg_of_65535": b"\xff\xd8\xff\xc0\x00\x0b\x08"
    + b"\xff" * 4
    + b"\x01\x01\x11\x00\xff\xda\x00\x02",
    "webp_truncated": file(Image.effect_noise((64, 64), 90), "WEBP")[:200],
    "webp_of_16384": webp(16_384, 16_384),
    "webp_head_only": b"RIFF\x00\x00\x00\x00WEBP",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_file_is_refused_by_name(data):
    with pytest.raises(errors.InvalidImage) as caught:
        read(data)
    assert list(caught.value.fields) == ["init_image"]
    assert "init_image" in caught.value.public_message


@pytest.mark.parametrize("name", ["png_50000", "png_wide", "png_2_to_31", "webp_of_16384"])
def test_large_picture_is_told_apart_from_a_broken_one(name):
    with pytest.raises(errors.InvalidImage, match=r"too large|not a readable"):
        read(HOSTILE[name])


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_large_picture_is_refused_where_pillow_only_warns():
    with pytest.raises(errors.InvalidImage, match="too large"):
        read(HOSTILE["png_100_megapixels"])


def test_pixels_are_not_unpacked_before_the_size_is_judged():
    bomb = png(8000, 8000, chunk(b"IDAT", BOMB_ROWS))
    with pytest.raises(errors.InvalidImage, match="too large"):
        read(bomb)


@pytest.mark.parametrize(("width", "height"), [(65, 8), (8, 65)])
def test_side_over_the_limit_is_refused(width, height):
    with pytest.raises(errors.InvalidImage, match="64 pixels per side"):
        read(file(gradient(width=width, height=height)), SMALL)


def test_pixels_over_the_limit_are_refused():
    config = ImagesConfig(max_pixels=4096)
    with pytest.raises(errors.InvalidImage, match="4096 pixels"):
        read(file(gradient(width=64, height=65)), config)
    assert read(file(gradient(width=64, height=64)), config).size == (64, 64)


def test_bytes_over_the_limit_are_refused():
    with pytest.raises(errors.InvalidImage, match="over 1024 bytes"):
        read(bytes(1025), ImagesConfig(max_bytes=1024))


def test_more_pixel_data_than_the_header_says_is_ignored():
    assert read(png(8, 8, chunk(b"IDAT", BOMB_ROWS))).size == (8, 8)


def test_many_text_chunks_do_no_harm():
    notes = [chunk(b"tEXt", b"k\x00v")] * 5000
    rows = chunk(b"IDAT", zlib.compress(bytes(8 * 25)))
    assert read(png(8, 8, *notes, rows)).size == (8, 8)


def test_picture_with_something_behind_it_is_read_as_the_picture():
    assert read(NOISE + b"<script>alert(1)</script>").size == (64, 64)
