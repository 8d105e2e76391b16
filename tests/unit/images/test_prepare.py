"""From two files to what a Generator wants."""

import io

import numpy as np
import pytest
from PIL import Image

from serve_app import errors
from serve_app.config import ImagesConfig
from serve_app.images.codec import to_image
from serve_app.images.decode import decode
from serve_app.images.prepare import prepare, prepare_controls, prepare_ip_picture
from serve_app.types import ControlType, Fit, Outpaint, Size
from tests.picture_files import file
from tests.unit.images.inputs import CONFIG, photo, size

FIT = Fit(area_px=256**2, multiple_px=8, min_px=64, max_px=1024, max_area_px=1024**2)


def left_half(width: int = 96, height: int = 64) -> bytes:
    image = Image.new("L", (width, height))
    image.paste(255, (0, 0, width // 2, height))
    return file(image)


def test_both_pictures_have_the_asked_size_and_mode():
    images = prepare(photo(), left_half(300, 50), size(32, 48), CONFIG)
    for picture, mode in ((images.init, "RGB"), (images.mask, "L")):
        assert (picture.height, picture.width) == (32, 48)
        assert (to_image(picture).mode, to_image(picture).size) == (mode, (48, 32))


def test_init_of_the_asked_size_is_not_touched():
    data = photo(48, 32)
    images = prepare(data, None, size(32, 48), CONFIG)
    with Image.open(io.BytesIO(data)) as image:
        assert to_image(images.init).tobytes() == image.tobytes()
    assert images.mask is None


def test_mask_holds_only_keep_and_repaint():
    soft = Image.linear_gradient("L").resize((96, 64))
    images = prepare(photo(), file(soft, "JPEG"), size(40, 72, mode="hard"), CONFIG)
    mask = np.asarray(to_image(images.mask))
    assert set(np.unique(mask)) == {0, 255}
    assert 0.45 < (mask == 255).mean() < 0.55


@pytest.mark.parametrize(("shade", "repainted"), [(127, False), (128, True)])
def test_mask_is_split_at_half(shade, repainted):
    image = Image.new("L", (8, 8), shade)
    image.putpixel((0, 0), 255)
    mask = np.asarray(
        to_image(prepare(photo(8, 8), file(image), size(8, 8, mode="hard"), CONFIG).mask)
    )
    assert (mask[4, 4] == 255) is np.bool_(repainted)


def test_mask_stays_aligned_with_a_turned_init():
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = Image.new("RGB", (32, 64), "black")
    upright.paste("white", (0, 0, 32, 32))
    init = file(upright.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)
    images = prepare(init, file(upright.convert("L")), size(64, 32), CONFIG)
    assert to_image(images.init).convert("L").tobytes() == to_image(images.mask).tobytes()


def stripes(side: int = 1024) -> bytes:
    """Upright stripes of 4 pixels, in a JPEG, which can be read at a fraction of its size."""
    row = np.arange(side) // 4 % 2 * 255
    return file(Image.fromarray(np.tile(row.astype(np.uint8), (side, 1))), "JPEG")


WIDE = Fit(area_px=8192, multiple_px=8, min_px=8, max_px=512, max_area_px=2**18, width=512)


@pytest.mark.parametrize("asked", [size(8, 512), size(8, 8, WIDE)], ids=["size", "fit"])
@pytest.mark.parametrize("is_control", [False, True])
def test_details_that_the_longer_side_shows_are_read(asked, is_control):
    if is_control:
        (made,) = prepare_controls("control_image", stripes(), (None,), asked, CONFIG).controls
    else:
        made = prepare(stripes(), None, asked, CONFIG).init
    assert made.width == 512
    assert np.asarray(to_image(made)).std() > 80


SMALL = FIT.model_copy(update={"max_px": 256})


@pytest.mark.parametrize(
    ("asked", "side_px"), [(size(64, 64), 256), (size(64, 64, SMALL), 512)], ids=["size", "fit"]
)
def test_large_picture_is_not_unpacked_whole(monkeypatch, asked, side_px):
    unpacked = []

    def watched(*given):
        image = decode(*given)
        unpacked.append(image.size)
        return image

    monkeypatch.setattr("serve_app.images.prepare.decode", watched)
    data = file(Image.new("RGB", (2048, 2048)), "JPEG")
    prepare(data, None, asked, CONFIG)
    prepare_controls("control_image", data, (None,), asked, CONFIG)
    assert unpacked == [(side_px, side_px)] * 2


def test_picture_that_grows_is_read_whole():
    grows = Outpaint(overlap_px=8, multiple_px=8, max_side_px=2048, max_area_px=2048**2, left=8)
    asked = Size(height=64, width=64, outpaint=grows)
    made = prepare(stripes(), None, asked, CONFIG).init
    assert (made.width, made.height) == (1032, 1024)


def test_without_a_size_both_pictures_take_the_shape_of_the_init():
    init = Image.new("RGB", (192, 128), "black")
    init.paste("white", (48, 32, 96, 128))
    square = init.convert("L").resize((600, 600), Image.Resampling.NEAREST)
    images = prepare(file(init), file(square), size(256, 256, FIT), CONFIG)
    assert (images.init.height, images.init.width) == (208, 312)
    light = np.asarray(to_image(images.init).convert("L")) >= 128
    assert (light == (np.asarray(to_image(images.mask)) == 255)).mean() > 0.99


def test_size_of_an_upright_picture_is_that_of_a_turned_file():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = file(Image.new("RGB", (192, 128)), "JPEG", exif=exif)
    images = prepare(data, None, size(256, 256, FIT), CONFIG)
    assert (images.init.height, images.init.width) == (312, 208)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_line_of_a_large_mask_is_still_there_in_a_small_one(form):
    large = Image.new("L", (2048, 2048))
    large.paste(255, (1023, 100, 1025, 1900))
    images = prepare(photo(), file(large, form), size(512, 512), CONFIG)
    mask = np.asarray(to_image(images.mask)) == 255
    assert mask[25:475, 255:257].all()
    assert mask.sum() <= 2 * (475 - 25) + 4 * 8  # a frame of what JPEG smears


def test_transparent_part_of_an_edit_mask_is_repainted():
    with Image.open(io.BytesIO(photo(16, 16))) as opened:
        image = opened.convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 8, 16))
    mask = to_image(prepare(photo(16, 16), file(image), size(16, 16), CONFIG).mask)
    assert (mask.getpixel((2, 2)), mask.getpixel((12, 2))) == (255, 0)


@pytest.mark.parametrize(
    "mask",
    [file(Image.new("L", (8, 8))), file(Image.new("RGBA", (8, 8), "black"))],
    ids=["black", "black_opaque"],
)
def test_mask_that_repaints_nothing_is_refused(mask):
    with pytest.raises(errors.InvalidImage, match="repaints nothing") as caught:
        prepare(photo(), mask, size(64, 96), CONFIG)
    assert list(caught.value.fields) == ["mask_image"]


@pytest.mark.parametrize("field", ["init_image", "mask_image"])
def test_broken_file_is_blamed_on_its_field(field):
    init, mask = (b"?", left_half()) if field == "init_image" else (photo(), b"?")
    with pytest.raises(errors.InvalidImage) as caught:
        prepare(init, mask, size(64, 64), CONFIG)
    assert list(caught.value.fields) == [field]


def test_one_pixel_pictures_are_stretched():
    images = prepare(file(Image.new("RGB", (1, 1), "red")), left_half(2, 1), size(64, 64), CONFIG)
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


def test_controls_are_hints_of_the_stretched_picture_one_per_net():
    hints = (ControlType.CANNY, None, ControlType.INPAINT, ControlType.CANNY)
    data = file(square())
    made = prepare_controls("control_image", data, hints, size(32, 48), CONFIG).controls
    assert made[2] is None
    assert made[0] == made[3]
    edges, plain = (to_image(one) for one in made[:2])
    assert edges.size == plain.size == (48, 32)
    assert plain.getpixel((24, 16)) == (255, 0, 0)
    assert {edges.getpixel((24, 16)), edges.getpixel((2, 2))} == {(0, 0, 0)}
    assert 255 in edges.getchannel("R").tobytes()


def test_controls_decide_a_size_that_was_left_open():
    fit = Fit(area_px=4096, multiple_px=8, min_px=8, max_px=512, max_area_px=65536)
    data = file(Image.new("RGB", (300, 100)))
    open_size = size(64, 64, fit)
    (made,) = prepare_controls("control_image", data, (None,), open_size, CONFIG).controls
    assert (made.width, made.height) == (120, 40)


def test_control_picture_that_is_none_names_its_field():
    with pytest.raises(errors.InvalidImage) as caught:
        prepare_controls("control_image", b"GIF89a", (None,), size(8, 8), CONFIG)
    assert caught.value.field == "control_image"


def square():
    picture = Image.new("RGB", (60, 60))
    picture.paste((255, 0, 0), (20, 20, 40, 40))
    return picture
