"""What a job's pictures are opened as, and what is wrong with those that cannot be."""

import numpy as np
import pytest
from PIL import Image

from serve_app import errors
from serve_app.images.codec import encode
from serve_app.pipelines.compose import (
    Canvas,
    Framing,
    enlarge,
    open_canvas,
    open_controls,
    open_ip_picture,
    paste,
    resized,
)
from serve_app.types import (
    ControlNetUse,
    Fill,
    IpAdapterUse,
    Kind,
    Picture,
    PreparedImages,
)
from tests.builders import spec

FRAMING = Framing(64, 8)
SIZE = {"height": 64, "width": 96}
RED, GREY = (200, 0, 0), (128, 128, 128)


def plain(colour=RED, size=(96, 64), mode="RGB"):
    return Image.new("RGB", size, colour).convert(mode)


def half_white(size=(96, 64)):
    mask = Image.new("L", size)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    return mask


def pictures(**images):
    return PreparedImages(**{name: encode(image) for name, image in images.items()})


def test_canvas_is_as_large_as_its_box_unless_it_is_painted_at_another_size():
    init, mask = plain(), half_white()
    canvas = Canvas(init, mask, (40, 16, 56, 48))
    assert canvas.size == (32, 16)
    assert canvas.seen().size == canvas.shades().size == (16, 32)
    assert np.asarray(canvas.shades())[:, ::8].tolist() == [[255, 0]] * 32
    larger = Canvas(init, mask, (40, 16, 56, 48), (128, 64))
    assert larger.size == (128, 64)
    assert larger.seen().size == larger.shades().size == (64, 128)
    assert np.unique(larger.shades()).tolist() == [0, 255], "no shades come of enlarging"
    assert Canvas(init, None, (0, 0, 96, 64)).shades() is None


def test_canvas_begins_with_what_fills_its_mask():
    init = plain()
    init.paste(GREY, (0, 0, 48, 64))
    canvas = Canvas(init, half_white(), (0, 0, 96, 64))
    assert canvas.with_fill(Fill.ORIGINAL, 1) is canvas
    unmasked = Canvas(init, None, canvas.box)
    assert unmasked.with_fill(Fill.BLUR, 1) is unmasked
    begun = canvas.with_fill(Fill.BLUR, 1)
    assert begun.seen().getcolors() == [(96 * 64, RED)]
    assert begun.init is init


@pytest.mark.parametrize(
    ("kind", "images", "field", "message"),
    [
        pytest.param(Kind.IMG2IMG, None, "init_image", "init_image field is required", id="none"),
        pytest.param(Kind.INPAINT, {}, "init_image", "init_image field is required", id="no-init"),
        pytest.param(
            Kind.INPAINT, {"init": plain()}, "mask_image", "mask_image field is required", id="mask"
        ),
        pytest.param(
            Kind.IMG2IMG, {"init": plain(size=(64, 96))}, "init_image", "size asked for", id="size"
        ),
        pytest.param(
            Kind.INPAINT,
            {"init": plain(), "mask": half_white((96, 72))},
            "mask_image",
            "size asked for",
            id="size-of-the-mask",
        ),
    ],
)
def test_picture_that_is_missing_or_has_another_size_is_named(kind, images, field, message):
    given = None if images is None else pictures(**images)
    with pytest.raises((errors.InvalidRequest, errors.InvalidImage), match=message) as caught:
        open_canvas(spec(kind=kind, **SIZE), given, FRAMING)
    assert caught.value.field == field


def test_grey_init_is_opened_in_colours():
    canvas = open_canvas(
        spec(kind=Kind.IMG2IMG, **SIZE), pictures(init=plain(GREY, mode="L")), FRAMING
    )
    assert canvas.init.mode == "RGB"
    assert canvas.init.getpixel((0, 0)) == GREY


def nets(*scales):
    return tuple(ControlNetUse(id="net", scale=scale) for scale in scales)


def test_controls_are_opened_for_the_nets_that_act():
    seen = tuple(encode(plain((level,) * 3, mode="L")) for level in (1, 2, 3))
    asked = spec(controlnets=nets(0.5, 0, 1), **SIZE)
    found = open_controls(asked, PreparedImages(controls=seen))
    assert [(one.mode, one.getpixel((0, 0))) for one in found] == [
        ("RGB", (1, 1, 1)),
        ("RGB", (3, 3, 3)),
    ]
    assert open_controls(spec(**SIZE), None) == ()
    inpaint = spec(kind=Kind.INPAINT, controlnets=nets(1), **SIZE)
    assert open_controls(inpaint, PreparedImages(controls=(None,))) == (None,)


@pytest.mark.parametrize(
    ("controls", "field", "message"),
    [
        (None, "control_image", "control_image field is required"),
        ((), "control_image", "control_image field is required"),
        ((None,), "mask_image", "mask_image field is required"),
        ((encode(plain(size=(8, 8))),), "control_image", "size asked for"),
        ((Picture(b"no picture", 64, 96),), "control_image", "could not be read"),
    ],
    ids=["no-pictures", "too-few", "no-mask", "size", "broken"],
)
def test_control_that_cannot_be_opened_is_named(controls, field, message):
    images = None if controls is None else PreparedImages(controls=controls)
    with pytest.raises((errors.InvalidRequest, errors.InvalidImage), match=message) as caught:
        open_controls(spec(controlnets=nets(1), **SIZE), images)
    assert caught.value.field == field


def test_picture_of_an_ip_adapter_is_opened_where_one_is_named():
    given = pictures(ip_adapter=plain(GREY, size=(8, 8), mode="L"))
    assert open_ip_picture(spec(), given) is None
    asked = spec(ip_adapter=IpAdapterUse(id="face", scale=1))
    assert open_ip_picture(asked, given).getcolors() == [(64, GREY)]
    for missing in (None, PreparedImages()):
        with pytest.raises(errors.InvalidRequest, match="field is required") as caught:
            open_ip_picture(asked, missing)
        assert caught.value.field == "ip_adapter_image"
    with pytest.raises(errors.InvalidImage, match="could not be read") as caught:
        open_ip_picture(asked, PreparedImages(ip_adapter=Picture(b"no picture", 8, 8)))
    assert caught.value.field == "ip_adapter_image"


def test_result_that_was_painted_larger_is_pasted_at_the_size_of_its_box():
    canvas = Canvas(plain(), half_white(), (32, 16, 64, 48), (128, 128))
    result = np.zeros((128, 128, 3), np.uint8)
    result[64:] = 255
    frame = paste(result, canvas, 0)
    assert (frame[16:30, 32:48] < 10).all()
    assert (frame[34:48, 32:48] > 245).all()
    assert (frame[:, 48:] == RED).all()
    assert (frame[:16] == RED).all()


def test_pixels_are_enlarged_in_both_directions():
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, 8:] = 255
    assert enlarge(pixels, 1) is pixels
    assert enlarge(pixels, 3).shape == (24, 48, 3)
    made = resized(pixels, 4, 32)
    assert made.shape == (4, 32, 3)
    assert (made[:, :12] < 20).all()
    assert (made[:, 20:] > 235).all()
    for other in ((8, 32), (16, 16)):
        assert resized(pixels, *other).shape == (*other, 3)
