"""What is shown in place of a flagged picture, and that it tells nothing about it."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from serve_app.safety.replace import replace
from serve_app.types import SafetyAction

SIZES = [(8, 8), (64, 64), (512, 512), (1024, 256), (256, 1024), (504, 344)]


def scene(size: tuple[int, int]) -> Image.Image:
    """A picture with sharp detail all over."""
    image = Image.effect_noise(size, 90).convert("RGB")
    pen = ImageDraw.Draw(image)
    for step in range(0, size[0], 16):
        pen.line((step, 0, size[0] - step, size[1]), fill=(step * 7 % 256, 40, 200))
    return image


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("action", SafetyAction)
def test_replacement_has_the_size_and_mode_of_the_picture(action, size):
    shown = replace(scene(size), action)
    assert (shown.size, shown.mode) == (size, "RGB")


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pixelated_picture_keeps_at_most_a_hundred_colours(size):
    shown = replace(scene(size), SafetyAction.PIXELATE)
    assert len(np.unique(np.asarray(shown).reshape(-1, 3), axis=0)) <= 100


@pytest.mark.parametrize("size", [(64, 64), (512, 512), (256, 1024)], ids=str)
def test_blurred_picture_has_no_detail(size):
    """Steps between neighbours stay far below those of the picture: no edge is left."""

    def steps(image: Image.Image) -> float:
        pixels = np.asarray(image, dtype=float)
        return max(np.abs(np.diff(pixels, axis=axis)).max() for axis in (0, 1))

    before = scene(size)
    assert steps(replace(before, SafetyAction.BLUR)) < 0.05 * steps(before)


@pytest.mark.parametrize("action", [SafetyAction.BLUR, SafetyAction.PIXELATE])
def test_pictures_that_differ_in_detail_only_look_the_same(action):
    """Stripes 120 levels apart and flat grey of the same average cannot be told apart."""
    plain = np.full((512, 512, 3), 128, np.uint8)
    detailed = plain.copy()
    detailed[::2] += 60
    detailed[1::2] -= 60
    one = np.asarray(replace(Image.fromarray(plain), action), dtype=int)
    other = np.asarray(replace(Image.fromarray(detailed), action), dtype=int)
    assert np.abs(one - other).max() <= 3


@pytest.mark.parametrize("action", [SafetyAction.TEXT, SafetyAction.BLACK])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_neutral_picture_does_not_depend_on_the_content(action, size):
    one, other = replace(scene(size), action), replace(Image.new("RGB", size, "red"), action)
    assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("size", SIZES[1:], ids=str)
def test_notice_fills_most_of_the_picture_and_is_not_cut(size):
    shown = replace(scene(size), SafetyAction.TEXT).convert("L")
    ink = shown.point(lambda value: 255 if value > 140 else 0).getbbox()
    assert ink is not None
    left, top, right, bottom = ink
    width, height = right - left, bottom - top
    assert max(width / size[0], height / size[1]) > 0.7
    assert left > 0
    assert top > 0
    assert right < size[0]
    assert bottom < size[1]


def test_black_picture_is_black():
    assert replace(scene((64, 64)), SafetyAction.BLACK).getextrema() == ((0, 0),) * 3
