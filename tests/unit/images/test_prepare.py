"""From two files to what a Generator wants."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from serve_app import errors
from serve_app.config import ImagesConfig
from serve_app.images.codec import to_image
from serve_app.images.prepare import prepare, prepare_controls, prepare_ip_picture
from serve_app.types import ControlType, Fit, Masking, Outpaint, Size

CONFIG = ImagesConfig()
FIT = Fit(area_px=256**2, multiple_px=8, min_px=64, max_px=1024, max_area_px=1024**2)


def file(image: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def size(height: int, width: int, fit: Fit | None = None, **masking) -> Size:
    return Size(height=height, width=width, fit=fit, masking=Masking(**masking))


def photo(width: int = 96, height: int = 64) -> bytes:
    return file(Image.effect_noise((width, height), 60).convert("RGB"))


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


def plan(**changes) -> Outpaint:
    values = {"overlap_px": 8, "multiple_px": 8, "max_side_px": 2048, "max_area_px": 2048**2}
    return Outpaint(**values | changes)


def grown(init: bytes, mask: bytes | None = None, mode: str = "auto", **changes):
    """Grow a picture; return it and its mask."""
    asked = Size(height=64, width=64, outpaint=plan(**changes), masking=Masking(mode=mode))
    images = prepare(init, mask, asked, CONFIG)
    return (np.asarray(to_image(one)).astype(int) for one in (images.init, images.mask))


def test_outpaint_keeps_the_picture_and_masks_what_is_new():
    data = photo(96, 64)
    init, mask = grown(data, right=40, top=16)
    assert init.shape == (80, 136, 3)
    old = np.asarray(Image.open(io.BytesIO(data)))
    assert (init[16:, :96] == old).all()
    assert (mask[:16] == 255).all()
    assert (mask[:, 96:] == 255).all()
    assert (mask[24:, :88] == 0).all(), "beyond the overlap nothing changes"
    assert (np.diff(mask[40, 86:97]) >= 0).all()
    assert 0 < mask[40, 89] < mask[40, 95] < 255


def test_outpaint_of_a_hard_mask_has_no_shades():
    _, mask = grown(photo(96, 64), mode="hard", left=32)
    assert set(np.unique(mask)) == {0, 255}
    assert (mask[:, :40] == 255).all()
    assert (mask[:, 40:] == 0).all()


def test_outpaint_rounds_sides_up_and_never_resamples():
    data = photo(95, 61)
    init, mask = grown(data, left=10)
    assert init.shape == (64, 112, 3)
    old = np.asarray(Image.open(io.BytesIO(data)))
    assert (init[:61, 17:] == old).all(), "what is lacking is added on the side that grows"
    assert (mask[61:] == 255).all(), "or below"


@pytest.mark.parametrize(
    ("anchor", "corner"),
    [
        pytest.param((0.5, 0.5), (16, 16), id="center"),
        pytest.param((0.0, 1.0), (0, 32), id="bottom-left"),
        pytest.param((1.0, 0.0), (32, 0), id="top-right"),
    ],
)
def test_outpaint_places_the_picture_at_its_anchor(anchor, corner):
    data = photo(96, 64)
    init, _ = grown(data, anchor=anchor, width=128, height=96)
    left, top = corner
    old = np.asarray(Image.open(io.BytesIO(data)))
    assert init.shape == (96, 128, 3)
    assert (init[top : top + 64, left : left + 96] == old).all()


def test_outpaint_shrinks_a_picture_that_does_not_fit_its_canvas():
    init, mask = grown(photo(200, 100), anchor=(0.5, 0.5), width=128, height=128)
    assert init.shape == (128, 128, 3)
    assert (mask[:32] == 255).all()
    assert (mask[48:80] == 0).all()


def test_outpaint_takes_a_mask_too():
    dot = Image.new("L", (96, 64))
    dot.paste(255, (40, 30, 50, 40))
    _, mask = grown(photo(96, 64), file(dot), left=32)
    assert (mask[30:40, 72:82] == 255).all()
    assert (mask[45:, 45:] == 0).all()
    _, mask = grown(photo(96, 64), file(dot.point([0, *[200] * 255])), left=32, mode="soft")
    assert (mask[30:40, 72:82] == 255).all(), "split at half, as windows paint what is white"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        pytest.param({"left": 2000}, "outpaint", id="too-wide"),
        pytest.param({"left": 100, "max_area_px": 9000}, "outpaint", id="too-large"),
        pytest.param({"anchor": (0.5, 0.5), "width": 96, "height": 64}, "width", id="nothing"),
    ],
)
def test_outpaint_that_cannot_be_is_refused(changes, field):
    with pytest.raises(errors.InvalidImage) as caught:
        grown(photo(96, 64), **changes)
    assert caught.value.field == field


@pytest.mark.parametrize("changes", [{"height": 1024}, {"width": 2000}], ids=["strip", "area"])
def test_outpaint_is_refused_before_a_picture_is_enlarged(changes, monkeypatch):
    monkeypatch.setattr(Image.Image, "resize", lambda *_args, **_kwargs: pytest.fail("enlarged"))
    size = (4096, 8) if "height" in changes else (64, 64)
    limit = {"max_side_px": 2048, "max_area_px": 1000 * 1000}
    with pytest.raises(errors.InvalidImage) as caught:
        grown(photo(*size), left=64, **limit | changes)
    assert caught.value.field == "outpaint"
