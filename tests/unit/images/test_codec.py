"""Our own pictures: exact, and free of what the input carried."""

import io

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from serve_app.images.codec import converted, encode, encode_jpeg, to_image
from serve_app.types import PictureFormat


def noise(seed: int, shape: tuple[int, ...] = (24, 40, 3)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


@pytest.mark.parametrize("shape", [(24, 40, 3), (24, 40)], ids=["rgb", "grey"])
def test_picture_survives_the_round_trip_exactly(shape):
    image = noise(1, shape)
    picture = encode(image)
    assert (picture.height, picture.width) == (24, 40)
    assert picture.data.startswith(b"\x89PNG")
    again = to_image(picture)
    assert again.mode == image.mode
    assert again.tobytes() == image.tobytes()


def test_metadata_of_the_input_is_left_behind(tmp_path):
    notes = PngImagePlugin.PngInfo()
    notes.add_text("parameters", "canary prompt")
    exif = Image.Exif()
    exif[0x010E] = "canary description"
    noise(1).save(tmp_path / "a.png", pnginfo=notes, exif=exif, icc_profile=b"canary", dpi=(9, 9))
    with Image.open(tmp_path / "a.png") as image:
        picture = encode(image)
        assert image.info, "the caller's picture keeps its own"
    assert b"canary" not in picture.data
    assert not to_image(picture).info


def jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


@pytest.mark.parametrize("shape", [(24, 40, 3), (24, 40)], ids=["rgb", "grey"])
def test_preview_is_a_jpeg_of_good_quality(shape):
    assert encode_jpeg(noise(1, shape)) == jpeg(noise(1, shape), 80)


@pytest.mark.parametrize("quality", [0, 1, 50, 100])
def test_picture_is_converted_with_the_quality_asked_for(quality):
    picture = encode(noise(1))
    assert converted(picture, PictureFormat.PNG, quality) is picture
    made = converted(picture, PictureFormat.JPEG, quality)
    assert made.data == jpeg(noise(1), max(1, quality))
    assert (made.height, made.width) == (24, 40)
    with Image.open(io.BytesIO(converted(picture, PictureFormat.WEBP, quality).data)) as webp:
        assert (webp.format, webp.size) == ("WEBP", (40, 24))
