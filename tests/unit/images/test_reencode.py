"""A client's file as a picture of ours."""

import io

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from serve_app import errors
from serve_app.config import ImagesConfig
from serve_app.images.codec import to_image
from serve_app.images.reencode import reencode

CONFIG = ImagesConfig(max_pixels=100_000)


def file(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def photo(width, height):
    return Image.effect_noise((width, height), 60).convert("RGB")


def test_reencode_keeps_the_pixels_and_drops_the_rest():
    notes = PngInfo()
    notes.add_text("secret", "here")
    image = photo(96, 64)
    picture = reencode("image", file(image, pnginfo=notes), CONFIG)
    assert (picture.width, picture.height) == (96, 64)
    assert np.array_equal(to_image(picture), image)
    assert b"secret" not in picture.data


@pytest.mark.parametrize(("width", "height", "box"), [(96, 64, (16, 0)), (63, 90, (0, 13))])
def test_reencode_crops_the_square_in_the_middle(width, height, box):
    image = photo(width, height)
    side = min(width, height)
    left, top = box
    expected = image.crop((left, top, left + side, top + side))
    assert np.array_equal(to_image(reencode("image", file(image), CONFIG, crop=True)), expected)


def test_reencode_turns_upright_and_lays_on_white():
    exif = Image.Exif()
    exif[274] = 6
    assert reencode("image", file(photo(96, 64), "JPEG", exif=exif), CONFIG).height == 96
    clear = to_image(reencode("image", file(Image.new("RGBA", (8, 8))), CONFIG))
    assert clear.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("data", [b"no picture", file(photo(400, 400)), file(photo(9, 9))[:60]])
def test_reencode_of_what_is_no_picture_names_the_field(data):
    with pytest.raises(errors.InvalidImage, match="base64_string"):
        reencode("base64_string", data, CONFIG)
