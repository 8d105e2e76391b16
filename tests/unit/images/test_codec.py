"""Our own pictures: exact, and free of what the input carried."""

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from serve_app.images.codec import encode, to_image


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
