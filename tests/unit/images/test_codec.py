"""Our own pictures: exact, and free of what the input carried."""

import base64

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from serve_app.images.codec import encode, paste_outside, to_base64, to_image


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


def test_kept_pixels_equal_the_init_exactly():
    init, painted = noise(1), noise(2)
    mask = noise(3, (24, 40)).point(lambda value: 255 if value >= 128 else 0)
    result = np.asarray(paste_outside(init, mask, painted))
    keep = np.asarray(mask) == 0
    assert (result[keep] == np.asarray(init)[keep]).all()
    assert (result[~keep] == np.asarray(painted)[~keep]).all()


def test_text_form_is_the_file_in_base64():
    picture = encode(noise(1))
    assert base64.b64decode(to_base64(picture), validate=True) == picture.data
