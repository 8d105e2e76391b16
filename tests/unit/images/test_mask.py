"""Which part of a mask is repainted: colour and alpha, thin lines, the split at half."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from serve_app.config import ImagesConfig
from serve_app.images.decode import decode
from serve_app.images.mask import finished, grown, has_greys, resized, to_binary, to_shades, to_soft
from serve_app.types import Masking

SIDE = 64
PART = (8, 16, 40, 48)
CLEAR = (0, 0, 0, 0)


def drawn(white: object = 255, black: object = 0, mode: str = "L") -> Image.Image:
    """A picture of two values: `white` in the part that is to be repainted."""
    image = Image.new(mode, (SIDE, SIDE), black)
    image.paste(white, PART)
    return image


EXPECTED = np.asarray(drawn()) == 255


def repainted(image: Image.Image, form: str = "PNG", **options: object) -> np.ndarray:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    decoded = decode("mask_image", buffer.getvalue(), ImagesConfig(), None)
    shades = to_shades(decoded)
    assert (shades.mode, shades.size) == ("L", image.size)
    return np.asarray(to_binary(shades)) == 255


def photo(mode: str = "RGB") -> Image.Image:
    """Smooth colours, as of a photograph."""
    small = np.random.default_rng(1).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert(mode)


def holed(image: Image.Image, *, keeps_colour: bool) -> Image.Image:
    """Make the part transparent, as an eraser does; some keep the colour that was there."""
    image = image.convert("RGBA")
    if keeps_colour:
        image.putalpha(drawn(white=0, black=255))
    else:
        image.paste(CLEAR, PART)
    return image


def canvas(colour: tuple[int, ...], radius: int = 6) -> tuple[Image.Image, np.ndarray]:
    """Strokes on a transparent HTML canvas, and where they are at least half opaque.

    The edges are translucent; where nothing was painted a canvas has black without opacity.
    """
    strokes = Image.new("L", (SIDE * 4, SIDE * 4))
    points = [(40, 40), (200, 120), (60, 210)]
    ImageDraw.Draw(strokes).line(points, fill=255, width=radius * 4)
    strokes = strokes.reduce(4)
    image = Image.new("RGBA", strokes.size, colour)
    image.putalpha(strokes.point(lambda level: level * colour[3] // 255))
    image.paste(CLEAR, mask=strokes.point(lambda level: 255 * (level == 0)))
    return image, np.asarray(strokes) >= 128


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA"])
def test_opaque_mask_repaints_where_it_is_white(mode: str) -> None:
    assert (repainted(drawn().convert(mode)) == EXPECTED).all()


def test_16_bit_mask_repaints_where_it_is_white() -> None:
    shades = np.where(EXPECTED, 40_000, 0).astype(np.uint16)
    assert (repainted(Image.fromarray(shades)) == EXPECTED).all()


@pytest.mark.parametrize("alpha", [255, 90], ids=["opaque-brush", "translucent-brush"])
@pytest.mark.parametrize(
    ("form", "options"),
    [("PNG", {}), ("WEBP", {"lossless": True}), ("WEBP", {"quality": 60})],
    ids=["png", "webp", "lossy-webp"],
)
def test_white_strokes_on_a_transparent_canvas_are_repainted(
    form: str, options: dict[str, object], alpha: int
) -> None:
    image, strokes = canvas((255, 255, 255, alpha))
    found = repainted(image, form, **options)
    assert 0.05 < strokes.mean() < 0.5
    assert (found == strokes).mean() > 0.99


def test_white_strokes_of_a_soft_brush_are_repainted() -> None:
    image = Image.new("RGBA", (SIDE, SIDE), (255, 255, 255, 0))
    soft = drawn().filter(ImageFilter.GaussianBlur(6))
    image.putalpha(soft)
    image.paste(CLEAR, mask=soft.point(lambda level: 255 * (level == 0)))
    assert (repainted(image) == (np.asarray(soft) * 255.0 / np.max(soft) >= 127.5)).all()


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_mask_whose_black_is_transparent_repaints_its_white(mode: str) -> None:
    image = drawn().convert(mode)
    black = {"P": image.getpixel((0, 0)), "L": 0, "RGB": (0, 0, 0)}[mode]
    assert (repainted(image, transparency=black) == EXPECTED).all()


@pytest.mark.parametrize("alpha", [254, 100, 0])
def test_pixel_that_is_not_opaque_changes_nothing_in_a_black_and_white_mask(alpha: int) -> None:
    image = drawn().convert("RGBA")
    image.putpixel((60, 60), (0, 0, 0, alpha))
    assert (repainted(image) == EXPECTED).all()


def test_transparent_part_of_a_black_and_white_mask_is_kept() -> None:
    image = drawn().convert("RGBA")
    image.paste((255, 255, 255, 0), (50, 0, 64, 64))
    assert (repainted(image) == EXPECTED).all()


@pytest.mark.parametrize(("num_coloured", "is_mask"), [(0, True), (35, True), (45, False)])
def test_mask_may_have_a_hundredth_of_coloured_pixels(num_coloured: int, is_mask: bool) -> None:
    image = drawn().convert("RGBA")
    assert SIDE**2 == 4096
    for place in range(num_coloured):
        image.putpixel((place, 60), (255, 0, 0, 255))
    image.putpixel((60, 62), CLEAR)
    assert (repainted(image) == EXPECTED).all() == is_mask


@pytest.mark.parametrize("quality", [10, 75])
def test_noise_and_soft_edges_do_not_hide_that_a_mask_is_black_and_white(quality: int) -> None:
    buffer = io.BytesIO()
    drawn().filter(ImageFilter.GaussianBlur(1)).convert("RGB").save(buffer, "JPEG", quality=quality)
    image = Image.open(buffer).convert("RGBA")
    image.putpixel((60, 60), CLEAR)
    found = repainted(image)
    assert (found == EXPECTED).mean() > 0.99


def test_almost_opaque_grey_mask_is_read_by_its_shades() -> None:
    image = Image.linear_gradient("L").convert("RGBA")
    image.putpixel((0, 0), (0, 0, 0, 254))
    assert (repainted(image) == (np.arange(256) >= 128)[:, None]).all()


@pytest.mark.parametrize("keeps_colour", [True, False], ids=["colour-kept", "colour-lost"])
@pytest.mark.parametrize(
    "image",
    [
        pytest.param(photo(), id="photograph"),
        pytest.param(photo("L"), id="grey-photograph"),
        pytest.param(photo().point(lambda level: level // 8), id="dark-photograph"),
        pytest.param(photo().point(lambda level: 160 + level * 3 // 8), id="light-photograph"),
        pytest.param(Image.new("RGB", (SIDE, SIDE), "black"), id="black"),
        pytest.param(Image.new("RGB", (SIDE, SIDE), "red"), id="red"),
        pytest.param(Image.new("RGB", (SIDE, SIDE), (128, 128, 128)), id="grey"),
    ],
)
@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_hole_is_repainted_where_colours_say_nothing(
    image: Image.Image, form: str, keeps_colour: bool
) -> None:
    options = {"lossless": True} if form == "WEBP" else {}
    assert (repainted(holed(image, keeps_colour=keeps_colour), form, **options) == EXPECTED).all()


def test_hole_of_an_evenly_white_picture_is_repainted() -> None:
    white = Image.new("RGB", (SIDE, SIDE), "white")
    assert (repainted(holed(white, keeps_colour=True)) == EXPECTED).all()
    assert (repainted(holed(white, keeps_colour=True).convert("LA")) == EXPECTED).all()


@pytest.mark.parametrize("colour", [(0, 0, 0, 255), (220, 30, 30, 255)], ids=["black", "red"])
def test_strokes_of_another_colour_are_kept_and_the_rest_repainted(colour: tuple[int, ...]) -> None:
    image, strokes = canvas(colour)
    assert (repainted(image) == ~strokes).mean() > 0.99


@pytest.mark.parametrize("most", [1, 3, 200])
def test_alpha_is_measured_by_its_greatest_value(most: int) -> None:
    """A well-known example for OpenAI's edits makes its mask of alpha 1 and 0."""
    image = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, most))
    image.paste(CLEAR, PART)
    assert (repainted(image) == EXPECTED).all()


def test_picture_that_is_transparent_everywhere_is_repainted_everywhere() -> None:
    assert repainted(Image.new("RGBA", (SIDE, SIDE), CLEAR)).all()


def test_mask_is_split_at_half() -> None:
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    assert np.asarray(to_binary(ramp))[0].tolist() == [0] * 128 + [255] * 128


@given(
    old=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    new=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    place=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
)
def test_resized_keeps_every_touched_pixel(
    old: tuple[int, int], new: tuple[int, int], place: tuple[float, float]
) -> None:
    """A single pixel covers what it covered before, and at most what it touched."""
    x, y = int(place[0] * old[0]), int(place[1] * old[1])
    mask = Image.new("L", old)
    mask.putpixel((x, y), 200)
    found = np.asarray(resized(mask, new))
    assert found.shape == (new[1], new[0])
    rows, columns = np.nonzero(found)
    assert set(found[rows, columns]) == {200}
    for places, at, before, after in ((columns, x, old[0], new[0]), (rows, y, old[1], new[1])):
        first, end = at * after / before, (at + 1) * after / before
        assert places.min() <= (first + end) / 2 <= places.max() + 1
        assert first - 1 < places.min()
        assert places.max() < end


def test_resized_to_the_same_size_changes_nothing() -> None:
    shades = photo("L")
    assert resized(shades, shades.size).tobytes() == shades.tobytes()


@pytest.mark.parametrize("angle", range(0, 90, 15))
def test_resized_keeps_a_thin_line_in_one_piece(angle: int) -> None:
    large = Image.new("L", (2048, 2048))
    ImageDraw.Draw(large).line((300, 1023, 1748, 1023), fill=255, width=2)
    small = np.asarray(to_binary(resized(large.rotate(angle), (512, 512))))
    along = np.linspace(-170, 170, 1000)
    x = np.round(255.5 + along * np.cos(np.radians(angle))).astype(int)
    y = np.round(255.5 - along * np.sin(np.radians(angle))).astype(int)
    near = np.max([small[y + dy, x + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)], axis=0)
    assert (near == 255).all()


def _strokes(width: int, side: int = 512) -> Image.Image:
    """Draw a thick line with round ends, antialiased."""
    points = [(80, 90), (400, 140), (150, 380), (420, 430)]
    large = Image.new("L", (side * 4, side * 4))
    draw = ImageDraw.Draw(large)
    scaled = [(x * side // 128, y * side // 128) for x, y in points]
    draw.line(scaled, 255, width * 4, joint="curve")
    for x, y in scaled:
        reach = width * 2
        draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=255)
    return large.resize((side, side), Image.Resampling.LANCZOS)


def _compressed(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


@pytest.mark.parametrize("quality", [100, 75, 25, 5])
@pytest.mark.parametrize("width", [3, 30, 80])
def test_edges_and_compression_are_no_greys(width: int, quality: int) -> None:
    assert not has_greys(_strokes(width))
    assert not has_greys(_compressed(_strokes(width), quality))


@pytest.mark.parametrize("factor", [2, 4])
def test_edges_of_an_enlarged_mask_are_no_greys(factor: int) -> None:
    small = _strokes(60 // factor, 512 // factor)
    assert not has_greys(small.resize((512, 512), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("quality", [None, 75, 25])
@pytest.mark.parametrize("blur", [8, 20, 60])
def test_soft_brushes_have_greys(blur: int, quality: int | None) -> None:
    soft = _strokes(80).filter(ImageFilter.GaussianBlur(blur))
    assert has_greys(soft if quality is None else _compressed(soft, quality))


def test_a_fleck_of_grey_in_a_large_mask_is_a_flaw() -> None:
    mask = Image.new("L", (512, 512), 255)
    mask.paste(128, (0, 0, 40, 40))
    assert not has_greys(mask)
    mask.paste(128, (0, 0, 120, 120))
    assert has_greys(mask)


@pytest.mark.parametrize(("level", "is_grey"), [(32, False), (33, True), (222, True), (223, False)])
def test_grey_is_more_than_32_levels_from_black_and_from_white(level: int, is_grey: bool) -> None:
    assert has_greys(drawn(white=level)) == is_grey


def test_soft_mask_is_smooth_along_a_side_that_grows_and_lightest_along_one_that_shrinks():
    steps = Image.fromarray(np.array([[64] * 4, [192] * 4], np.uint8))
    for turned in (False, True):
        low = steps.transpose(Image.Transpose.TRANSPOSE) if turned else steps
        made = np.asarray(to_soft(low, (16, 4) if turned else (4, 16)))
        made = made.T if turned else made
        assert (made == made[:, :1]).all()
        assert (np.diff(made[:, 0].astype(int)) >= 0).all()
        assert len(np.unique(made)) > 4
    lines = Image.fromarray(np.array([[40] * 4, [200] * 4] * 8, np.uint8))
    for sides, turned in (((4, 8), lines), ((8, 4), lines.transpose(Image.Transpose.TRANSPOSE))):
        assert (np.asarray(to_soft(turned, sides)) == 200).all()


def test_nearly_black_and_nearly_white_of_a_soft_mask_are_black_and_white():
    shades = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = shades.copy()
    expected[shades < 16], expected[shades >= 240] = 0, 255
    assert np.array_equal(to_soft(Image.fromarray(shades), (16, 16)), expected)


@pytest.mark.parametrize("light", [223, 240, 255])
def test_hole_of_a_picture_that_is_one_colour_but_for_noise_is_repainted(light: int) -> None:
    image = Image.new("RGBA", (SIDE, SIDE), (255, 255, 255, 255))
    image.paste((light, light, light, 255), (48, 48, 60, 60))
    image.paste((255, 255, 255, 0), PART)
    assert (repainted(image) == EXPECTED).all()


@pytest.mark.parametrize("by_px", [-3, -1, 0, 1, 2])
def test_mask_grows_and_shrinks_by_so_many_pixels_on_each_side(by_px: int) -> None:
    left, top, right, bottom = PART
    wanted = Image.new("L", (SIDE, SIDE), 0)
    wanted.paste(255, (left - by_px, top - by_px, right + by_px, bottom + by_px))
    assert grown(drawn(), by_px).tobytes() == wanted.tobytes()


def test_greys_of_a_photographs_own_alpha_are_meant() -> None:
    """Though it has colours, of which a mask has none: they say nothing here."""
    half = Image.new("L", (SIDE, SIDE), 255)
    half.paste(100, PART)
    image = photo()
    image.putalpha(half)
    made = np.asarray(finished(image, (SIDE, SIDE), Masking(), is_alpha_mask=False))
    assert set(made[EXPECTED].tolist()) == {155}
    assert not made[~EXPECTED].any()


def test_greys_of_a_photograph_that_is_opaque_are_not_meant() -> None:
    image = photo()
    image.putalpha(255)
    made = np.asarray(finished(image, (SIDE, SIDE), Masking(), is_alpha_mask=False))
    assert set(np.unique(made)) == {0, 255}
