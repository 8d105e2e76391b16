"""Which masks are soft, which are split, and what their fields and OpenAI's call make of them."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from serve_app import errors
from serve_app.images.codec import to_image
from serve_app.images.prepare import prepare
from serve_app.types import Masking, Size
from tests.picture_files import file
from tests.unit.images.inputs import CONFIG, photo, size


def openai_mask(mode: str, keep: object, hole: object, sides: tuple[int, int] = (96, 64)) -> bytes:
    """Hole in the left half."""
    image = Image.new(mode, sides, keep)
    image.paste(hole, (0, 0, sides[0] // 2, sides[1]))
    return file(image)


@pytest.mark.parametrize(
    ("mode", "keep", "hole"),
    [
        pytest.param("RGBA", (0, 0, 0, 255), (0, 0, 0, 0), id="black, erased"),
        pytest.param("RGBA", (255, 255, 255, 255), (0, 0, 0, 0), id="white, erased to black"),
        pytest.param("RGBA", (255, 255, 255, 255), (255, 255, 255, 0), id="white, erased"),
        pytest.param("RGBA", (9, 99, 40, 255), (9, 99, 40, 0), id="coloured, erased"),
        pytest.param("LA", (255, 255), (0, 0), id="grey with alpha"),
        pytest.param("RGB", (0, 0, 0), (255, 255, 255), id="black and white"),
        pytest.param("L", 0, 255, id="grey"),
    ],
)
def test_mask_of_openais_call_repaints_what_is_transparent_or_else_white(mode, keep, hole):
    mask = openai_mask(mode, keep, hole)
    images = prepare(photo(), mask, size(64, 96), CONFIG, is_alpha_mask=True)
    found = np.asarray(to_image(images.mask)) == 255
    assert found[:, :48].all()
    assert not found[:, 48:].any()


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_mask_of_openais_call_must_have_the_size_of_the_picture(form):
    init = file(Image.effect_noise((960, 640), 60).convert("RGB"), form)  # a draft would be smaller
    good, bad = (openai_mask("L", 0, 255, sides) for sides in ((960, 640), (960, 648)))
    assert prepare(init, good, size(64, 96), CONFIG, is_alpha_mask=True).mask.width == 96
    with pytest.raises(errors.InvalidImage, match="size of the init_image") as caught:
        prepare(init, bad, size(64, 96), CONFIG, is_alpha_mask=True)
    assert caught.value.field == "mask_image"
    assert prepare(init, bad, size(64, 96), CONFIG).mask.width == 96


RAMP = np.tile(np.linspace(0, 255, 96).astype(np.uint8), (64, 1))


def alpha_ramp(mode, least=0):
    """Repaint more and more to the right."""
    if mode == "L":
        return Image.fromarray(RAMP)
    image = Image.new(mode, (96, 64), "white")
    image.putalpha(Image.fromarray(np.maximum(255 - RAMP, least)))
    return image


@pytest.mark.parametrize("mode", ["RGBA", "LA", "L"])
def test_greys_of_openais_mask_count_as_in_other_calls(mode):
    soft, auto, hard = (
        prepare(
            photo(),
            file(alpha_ramp(mode)),
            Size(height=64, width=96, masking=Masking(mode=how)),
            CONFIG,
            is_alpha_mask=True,
        ).mask
        for how in ("soft", "auto", "hard")
    )
    shades = np.asarray(to_image(soft)).astype(int)
    inner = (RAMP > 20) & (RAMP < 235)
    assert (shades == RAMP)[inner].all()
    assert np.array_equal(shades, np.asarray(to_image(auto)))
    assert set(np.unique(np.asarray(to_image(hard)))) == {0, 255}


def test_faint_hole_of_openais_soft_mask_is_no_white():
    asked = Size(height=64, width=96, masking=Masking(mode="soft"))
    mask = file(alpha_ramp("RGBA", least=150))
    made = prepare(photo(), mask, asked, CONFIG, is_alpha_mask=True).mask
    shades = np.asarray(to_image(made))
    assert shades[:, 0].max() == 0
    assert shades.max() == 105


def test_coloured_mask_of_openais_call_is_split_at_half():
    mask = Image.effect_noise((96, 64), 90).convert("RGB")
    mask.paste((160, 20, 20), (0, 0, 40, 64))
    mask.paste((200, 160, 100), (60, 0, 96, 64))
    images = prepare(photo(), file(mask), size(64, 96), CONFIG, is_alpha_mask=True)
    assert set(np.unique(np.asarray(to_image(images.mask)))) == {0, 255}


def test_mask_of_openais_call_that_repaints_nothing_is_refused():
    mask = file(Image.new("RGBA", (96, 64), "black"))
    with pytest.raises(errors.InvalidImage, match="must be transparent or white"):
        prepare(photo(), mask, size(64, 96), CONFIG, is_alpha_mask=True)


def mask_made(mask: Image.Image, side: int = 96, form: str = "PNG", **masking) -> np.ndarray:
    """Prepare a mask for a square picture."""
    data = file(mask, form, **({"quality": 75} if form == "JPEG" else {}))
    images = prepare(photo(side, side), data, size(side, side, **masking), CONFIG)
    return np.asarray(to_image(images.mask)).astype(int)


@pytest.mark.parametrize(("num_tinted", "is_soft"), [(0, True), (90, True), (95, False)])
def test_mask_with_a_hundredth_of_tinted_pixels_is_no_picture(num_tinted, is_soft):
    """Of 96 x 96 pixels that is 92."""
    ramp = Image.linear_gradient("L").resize((96, 96)).convert("RGB")
    for number in range(num_tinted):
        ramp.putpixel((number, 48), (255, 0, 0))
    assert (len(np.unique(mask_made(ramp))) > 2) is is_soft


def test_grey_areas_are_kept_where_nothing_is_said_and_split_where_hard_is():
    ramp = Image.linear_gradient("L").resize((96, 96))
    auto, soft, hard = (mask_made(ramp, mode=mode) for mode in ("auto", "soft", "hard"))
    assert len(np.unique(auto)) > 50
    assert (auto == soft).all()
    assert set(np.unique(hard)) == {0, 255}
    assert (np.abs(soft - np.asarray(ramp))[:, 40] <= 16).all()


def test_one_grey_all_over_is_a_soft_mask():
    assert (mask_made(Image.new("L", (96, 96), 100)) == 100).all()


def test_the_same_coloured_picture_as_init_and_mask_is_split_at_half():
    random = np.random.default_rng(1)
    coarse = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    picture = coarse.resize((96, 96), Image.Resampling.BICUBIC)
    made = mask_made(picture)
    assert (made == np.where(np.asarray(picture.convert("L")) >= 128, 255, 0)).all()
    grey = mask_made(picture.convert("L").convert("RGB"))
    assert len(np.unique(grey)) > 50, "without colours it may be a soft mask"


def test_a_soft_brush_on_a_transparent_canvas_is_a_soft_mask():
    alpha = (
        Image.radial_gradient("L").resize((96, 96)).point([max(0, 255 - 2 * i) for i in range(256)])
    )
    canvas = Image.merge("LA", (alpha.point([0] + [255] * 255), alpha)).convert("RGBA")
    made = mask_made(canvas)
    assert len(np.unique(made)) > 50
    assert made[48, 48] > 240
    assert made[0, 0] == 0


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_invert_mask_repaints_the_black(form):
    half = Image.new("L", (96, 96))
    half.paste(255, (0, 0, 48, 96))
    made = mask_made(half, form=form, invert=True)
    assert (made[:, :44] == 0).all()
    assert (made[:, 52:] == 255).all()


@pytest.mark.parametrize(
    ("expand", "box"),
    [
        pytest.param(5, (35, 35, 65, 65), id="grown"),
        pytest.param(-5, (45, 45, 55, 55), id="shrunk"),
        pytest.param(1000, (0, 0, 96, 96), id="larger-than-the-picture"),
    ],
)
def test_mask_expand_counts_in_pixels_of_the_picture(expand, box):
    drawn = Image.new("L", (192, 192))
    drawn.paste(255, (80, 80, 120, 120))
    made = mask_made(drawn, expand_px=expand)
    assert Image.fromarray(made.astype(np.uint8)).getbbox() == box


def test_what_touches_the_frame_shrinks_on_its_other_sides_only():
    drawn = Image.new("L", (96, 96))
    drawn.paste(255, (0, 0, 40, 96))
    made = Image.fromarray(mask_made(drawn, expand_px=-8).astype(np.uint8))
    assert made.getbbox() == (0, 0, 32, 96)


@pytest.mark.parametrize(
    ("shade", "masking", "words"),
    [
        pytest.param(0, {}, "must be white", id="all-black"),
        pytest.param(255, {"invert": True}, "must be black", id="all-white-inverted"),
        pytest.param(15, {"mode": "soft"}, "must be white", id="too-dark-to-count"),
    ],
)
def test_mask_of_one_shade_that_repaints_nothing_is_refused(shade, masking, words):
    with pytest.raises(errors.InvalidImage, match=words):
        mask_made(Image.new("L", (96, 96), shade), **masking)


def test_shrinking_a_mask_to_nothing_is_refused_by_name():
    dot = Image.new("L", (96, 96))
    dot.putpixel((50, 50), 255)
    assert mask_made(dot).sum() == 255
    with pytest.raises(errors.InvalidImage, match="mask_expand"):
        mask_made(dot, expand_px=-1)


def test_fifty_layers_of_grey_stay_in_order():
    layers = Image.fromarray(np.repeat(np.linspace(0, 255, 50).astype(np.uint8), 4)[None, :200])
    made = mask_made(layers.resize((200, 200)), side=200)
    assert (np.diff(made[0]) >= 0).all()
    assert len(np.unique(made)) > 40


def test_wide_soft_mask_is_brought_to_the_picture():
    wide = Image.linear_gradient("L").rotate(90).resize((8192, 64))
    made = mask_made(wide)
    assert made[0, -1] == 0 or made[0, 0] == 0
    assert made.max() == 255
    assert len(np.unique(made)) > 50


def test_compression_leaves_the_black_of_a_soft_mask_black():
    blob = Image.new("L", (256, 256))
    blob.paste(255, (96, 96, 160, 160))
    soft = blob.filter(ImageFilter.GaussianBlur(12))
    made = mask_made(soft, side=256, form="JPEG")
    assert len(np.unique(made)) > 50
    assert (made[:40] == 0).all()
    assert (made[:, :40] == 0).all()
