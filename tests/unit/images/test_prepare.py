"""From two files to what a Generator wants."""

import io

import numpy as np
import pytest
from PIL import Image

from serve_app import errors
from serve_app.config import ImagesConfig
from serve_app.images.codec import to_image
from serve_app.images.prepare import prepare, prepare_ip_picture

CONFIG = ImagesConfig()


def file(image: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def photo(width: int = 96, height: int = 64) -> bytes:
    return file(Image.effect_noise((width, height), 60).convert("RGB"))


def left_half(width: int = 96, height: int = 64) -> bytes:
    image = Image.new("L", (width, height))
    image.paste(255, (0, 0, width // 2, height))
    return file(image)


def test_both_pictures_have_the_asked_size_and_mode():
    images = prepare(photo(), left_half(300, 50), 32, 48, CONFIG)
    for picture, mode in ((images.init, "RGB"), (images.mask, "L")):
        assert (picture.height, picture.width) == (32, 48)
        assert (to_image(picture).mode, to_image(picture).size) == (mode, (48, 32))


def test_init_of_the_asked_size_is_not_touched():
    data = photo(48, 32)
    images = prepare(data, None, 32, 48, CONFIG)
    with Image.open(io.BytesIO(data)) as image:
        assert to_image(images.init).tobytes() == image.tobytes()
    assert images.mask is None


def test_mask_holds_only_keep_and_repaint():
    soft = Image.linear_gradient("L").resize((96, 64))
    images = prepare(photo(), file(soft, "JPEG"), 40, 72, CONFIG)
    mask = np.asarray(to_image(images.mask))
    assert set(np.unique(mask)) == {0, 255}
    assert 0.45 < (mask == 255).mean() < 0.55


@pytest.mark.parametrize(("shade", "repainted"), [(127, False), (128, True)])
def test_mask_is_split_at_half(shade, repainted):
    image = Image.new("L", (8, 8), shade)
    image.putpixel((0, 0), 255)
    mask = np.asarray(to_image(prepare(photo(8, 8), file(image), 8, 8, CONFIG).mask))
    assert (mask[4, 4] == 255) is np.bool_(repainted)


def test_mask_stays_aligned_with_a_turned_init():
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = Image.new("RGB", (32, 64), "black")
    upright.paste("white", (0, 0, 32, 32))
    init = file(upright.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)
    images = prepare(init, file(upright.convert("L")), 64, 32, CONFIG)
    assert to_image(images.init).convert("L").tobytes() == to_image(images.mask).tobytes()


def test_transparent_part_of_an_edit_mask_is_repainted():
    image = Image.new("RGBA", (16, 16), "white")
    image.paste((0, 0, 0, 0), (0, 0, 8, 16))
    mask = to_image(prepare(photo(16, 16), file(image), 16, 16, CONFIG).mask)
    assert (mask.getpixel((2, 2)), mask.getpixel((12, 2))) == (255, 0)


@pytest.mark.parametrize(
    "mask",
    [file(Image.new("L", (8, 8))), file(Image.new("RGBA", (8, 8), "black"))],
    ids=["black", "black_opaque"],
)
def test_mask_that_repaints_nothing_is_refused(mask):
    with pytest.raises(errors.InvalidImage, match="repaints nothing") as caught:
        prepare(photo(), mask, 64, 96, CONFIG)
    assert list(caught.value.fields) == ["mask_image"]


@pytest.mark.parametrize("field", ["init_image", "mask_image"])
def test_broken_file_is_blamed_on_its_field(field):
    init, mask = (b"?", left_half()) if field == "init_image" else (photo(), b"?")
    with pytest.raises(errors.InvalidImage) as caught:
        prepare(init, mask, 64, 64, CONFIG)
    assert list(caught.value.fields) == [field]


def test_one_pixel_pictures_are_stretched():
    images = prepare(file(Image.new("RGB", (1, 1), "red")), left_half(2, 1), 64, 64, CONFIG)
    assert to_image(images.init).getcolors() == [(4096, (255, 0, 0))]
    assert 0.3 < (np.asarray(to_image(images.mask)) == 255).mean() < 0.7


def test_picture_for_an_ip_adapter_keeps_its_aspect():
    config = ImagesConfig(ip_adapter_side_px=64)
    small = prepare_ip_picture(photo(48, 32), config)
    large = prepare_ip_picture(photo(96, 24), config)
    assert (small.width, small.height) == (48, 32)
    assert (large.width, large.height) == (64, 16)


@pytest.mark.parametrize("size", [(64, 2), (2, 64)])
def test_strip_for_an_ip_adapter_keeps_its_middle(size):
    strip = Image.new("RGB", size)
    strip.paste("red", tuple(side // 2 + end for end in (-1, 1) for side in size))
    kept = to_image(prepare_ip_picture(file(strip), CONFIG))
    assert sorted(kept.size) == [2, 8]
    assert kept.getpixel((kept.width // 2, kept.height // 2)) == (255, 0, 0)


def test_bad_picture_for_an_ip_adapter_is_named():
    with pytest.raises(errors.InvalidImage) as caught:
        prepare_ip_picture(b"no picture", CONFIG)
    assert caught.value.field == "ip_adapter_image"
