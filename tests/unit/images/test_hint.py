"""What ControlNets are shown: compared with OpenCV where it makes the same, and by what stays."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from serve_app.images import hint
from serve_app.types import ControlNetUse, ControlType, Picture, PreparedImages
from tests.builders import spec

DATA = Path(__file__).parents[2] / "data" / "hints"


@pytest.fixture(scope="module")
def picture():
    return Image.open(DATA / "picture.png").convert("RGB")


def test_canny_draws_the_edges_that_opencv_draws(picture):
    """canny.png is of OpenCV 5.0: cv2.Canny(picture, 100, 200)."""
    wanted = np.asarray(Image.open(DATA / "canny.png").convert("L")) > 0
    found = np.asarray(hint.make(ControlType.CANNY, picture))[..., 0] > 0
    assert wanted.sum() > 500
    assert (found ^ wanted).sum() <= 0.01 * wanted.sum()


@pytest.mark.parametrize("contrast", [1, 0.25, 0.15, 0.1])
def test_scribble_draws_the_blurred_edges_that_opencv_draws_thick(picture, contrast):
    """Of a picture of 128 the blur is a quarter of that of 512; both thresholds are halved."""
    faint = picture.point(lambda level: round(level * contrast))
    blurred = cv2.GaussianBlur(np.asarray(faint, np.float32), (0, 0), 1.5 * 128 / 512)
    edges = cv2.Canny(blurred.round().astype(np.uint8), 50, 100)
    wanted = cv2.dilate(edges, np.ones((2, 2), np.uint8), anchor=(0, 0)) > 0
    strokes = np.asarray(hint.make(ControlType.SCRIBBLE, faint))[..., 0] > 0
    assert wanted.sum() > 800
    assert (strokes ^ wanted).sum() <= 0.04 * wanted.sum()


@pytest.mark.parametrize("side", [128, 512, 1024])
@pytest.mark.parametrize("is_upright", [False, True])
def test_blur_is_of_8_pixels_in_a_picture_of_512(side, is_upright):
    """It makes the step from black to white a normal distribution's."""
    sharp = step(side, 16)
    sharp = sharp.transpose(Image.Transpose.TRANSPOSE) if is_upright else sharp
    blurred = np.asarray(hint.make(ControlType.BLUR, sharp).convert("L"), float)
    slope = np.diff(blurred[:, 8] if is_upright else blurred[8])
    place = np.arange(len(slope))
    mean = np.average(place, weights=slope)
    spread = np.average((place - mean) ** 2, weights=slope) ** 0.5
    assert spread == pytest.approx(8 * side / 512, rel=0.01)


def test_gray_has_equal_colours_of_the_same_luminance(picture):
    red, green, blue = hint.make(ControlType.GRAY, picture).split()
    assert red.tobytes() == green.tobytes() == blue.tobytes() == picture.convert("L").tobytes()


def test_shuffle_moves_what_is_there_and_is_always_the_same(picture):
    first, again = (np.asarray(hint.make(ControlType.SHUFFLE, picture)) for _ in range(2))
    values = np.asarray(picture)
    assert (first == again).all()
    assert np.abs(first.astype(int) - values).mean() > 20
    assert first.min() >= values.min()
    assert first.max() <= values.max()


def test_shuffle_takes_each_pixel_from_a_place_that_moves_smoothly_over_the_whole_picture():
    """Colours name the place that they come from: red across, green down."""
    down, across = np.mgrid[0:96, 0:160]
    named = np.stack([across, 2 * down, np.full_like(down, 77)], -1).astype(np.uint8)
    made = np.asarray(hint.make(ControlType.SHUFFLE, Image.fromarray(named)))
    across, down = made[..., 0].astype(int), made[..., 1] / 2
    assert (across.min(), across.max(), down.min(), down.max()) == (0, 159, 0, 95)
    assert (made[..., 2] == 77).all()
    for places in (across, down):
        steps = [np.abs(np.diff(places, axis=axis)).max() for axis in (0, 1)]
        assert 0 < max(steps) <= 6
    # The same in every version: who repeats a request gets the same picture.
    wanted = [[31, 39, 67, 110], [59, 145, 92, 27], [126, 90, 39, 11]]
    assert np.abs(across[::32, ::40] - wanted).max() <= 1
    assert np.abs(down[32, ::40] - [46, 61, 86, 93]).max() <= 1


def test_shuffle_mixes_neighbours_and_makes_no_other_colours():
    steps = step(64).point(lambda level: 50 + level // 2)
    made = np.asarray(hint.make(ControlType.SHUFFLE, steps))
    assert (made.min(), made.max()) == (50, 177)
    assert len(np.unique(made)) > 10


@pytest.mark.parametrize("as_is", [None, "tile", "qrcode", "low_quality", "depth"])
def test_picture_is_shown_as_it_is(picture, as_is):
    shown = hint.make(as_is and ControlType(as_is), picture)
    assert shown.tobytes() == picture.tobytes()


def test_hints_that_are_drawn_are_those_that_differ_from_their_picture(picture):
    made = {one: hint.make(one, picture).tobytes() for one in ControlType}
    drawn = {one for one, pixels in made.items() if pixels != picture.tobytes()}
    assert drawn == {one for one in ControlType if one.is_drawn and one.setting is None}


def test_drawn_hints_of_a_job_are_found_among_what_its_nets_see():
    hints = ("tile", "canny", None, "canny", "blur")
    uses = tuple(ControlNetUse(id="net", scale=1, hint=hint) for hint in hints)
    seen = tuple(Picture(name, 8, 8) for name in (b"t", b"c", b"n", b"c", b"b"))
    asked = spec(controlnets=uses)
    assert asked.drawn_hints == ("canny", "blur")
    assert PreparedImages(controls=seen).drawn(asked) == (seen[1], seen[4])


@pytest.mark.parametrize("size", [(8, 8), (8, 1024), (64, 40)], ids=str)
@pytest.mark.parametrize("name", [one for one in ControlType if one.can_be_made])
@pytest.mark.parametrize("value", [0, 255], ids=["black", "white"])
def test_hint_of_any_size_and_of_one_colour_is_a_picture_of_that_size(size, name, value):
    made = hint.make(name, Image.new("RGB", size, (value,) * 3))
    assert (made.size, made.mode) == (size, "RGB")


def step(width, height=64):
    """Black beside white."""
    values = np.zeros((height, width, 3), np.uint8)
    values[:, width // 2 :] = 255
    return Image.fromarray(values)


@pytest.mark.parametrize(("width", "stroke_px"), [(128, 2), (256, 2), (512, 3), (1024, 6)])
def test_strokes_are_as_wide_as_the_picture_asks_for(width, stroke_px):
    strokes = np.asarray(hint.make(ControlType.SCRIBBLE, step(width)))[..., 0] > 0
    assert set(strokes[16:48].sum(1)) == {stroke_px}


@pytest.mark.parametrize(
    ("above", "below", "rows"),
    [(50.0, 50.0, 0), (50.2, 50.2, 64), (50.2, 25.2, 64), (50.2, 25.0, 33), (25.2, 25.2, 0)],
)
def test_edges_are_stronger_than_200_or_joined_to_one_by_more_than_100(above, below, rows):
    """Across a step of h the gradient is 4 h; where two meet, that of the rows comes to it."""
    values = np.zeros((64, 64, 3), np.float32)
    values[:32, 32:], values[32:, 32:] = above, below
    assert hint._edges(values)[:, 20:44].any(1).sum() == pytest.approx(
        rows, abs=1 if rows == 33 else 0
    )
