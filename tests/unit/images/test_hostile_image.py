"""Limits on pictures, and what is refused with which words. The whole corpus: test_corpus.py."""

import numpy as np
import pytest
from PIL import Image

from serve_app import errors
from serve_app.config import ImagesConfig
from serve_app.images.decode import decode
from tests.picture_files import BOMB, HOSTILE, chunk, file, png

CONFIG = ImagesConfig()
SMALL = ImagesConfig(max_side_px=64, max_pixels=4096)


def read(data: bytes, config: ImagesConfig = CONFIG, wanted_px: int = 512) -> Image.Image:
    return decode("init_image", data, config, wanted_px)


def gradient(mode: str = "RGB", width: int = 32, height: int = 16) -> Image.Image:
    ramp = np.linspace(0, 255, width * height).astype(np.uint8).reshape(height, width)
    return Image.merge("RGB", [Image.fromarray(ramp)] * 3).convert(mode)


@pytest.mark.parametrize("name", ["png_50000", "png_wide", "png_2_to_31", "webp_of_16384"])
def test_large_picture_is_told_apart_from_a_broken_one(name):
    with pytest.raises(errors.InvalidImage, match=r"too large|not a readable"):
        read(HOSTILE[name])


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_large_picture_is_refused_where_pillow_only_warns():
    with pytest.raises(errors.InvalidImage, match="too large"):
        read(HOSTILE["png_100_megapixels"])


def test_pixels_are_not_unpacked_before_the_size_is_judged():
    bomb = png(8000, 8000, chunk(b"IDAT", BOMB))
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


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda data: data[: len(data) // 2], "The mask_image picture is broken or incomplete."),
        (
            lambda data: b"x" + data,
            "The mask_image file is not a readable PNG, JPEG or WebP picture.",
        ),
    ],
    ids=["cut off", "of no form"],
)
def test_error_of_a_picture_names_its_field_and_says_why(spoil, reason):
    with pytest.raises(errors.InvalidImage) as caught:
        decode("mask_image", spoil(file(gradient())), CONFIG, 512)
    assert caught.value.fields == {"mask_image": [reason]}
