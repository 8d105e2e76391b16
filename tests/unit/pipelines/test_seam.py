"""What joins the painted part to the picture: edges, and the tone as far as kept pixels say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from scipy import ndimage

from serve_app.pipelines.compose import Canvas, paste
from serve_app.pipelines.seam import edge_weight, spread, tone_offset

BOX = (24, 16, 72, 80)


def _mask(white: tuple[int, int, int, int] = BOX) -> Image.Image:
    mask = Image.new("L", (100, 92), 0)
    mask.paste(255, white)
    return mask


def _flat(level: int) -> np.ndarray:
    return np.full((92, 100, 3), level, np.float32)


def test_tone_offset_even_tint_is_taken_back_in_the_mask_too() -> None:
    offset = tone_offset(_flat(120), _flat(113), _mask())
    assert np.abs(offset - 7).max() < 0.01


def test_tone_offset_slope_goes_on_across_the_mask() -> None:
    slope = np.broadcast_to(np.linspace(0, 10, 100, dtype=np.float32)[None, :, None], (92, 100, 3))
    offset = tone_offset(_flat(120) + slope, _flat(120), _mask())
    assert np.abs(offset - slope).max() < 2.5  # from columns 24 and 71, 5 levels apart


def test_tone_offset_another_object_beside_the_mask_does_not_bleed_in() -> None:
    result = _flat(120)
    result[16:80, 80:] = 30
    assert not tone_offset(_flat(120), result, _mask()).any()


@pytest.mark.parametrize("size", [(8, 8), (16, 16), (8, 24), (40, 56)], ids=str)
@pytest.mark.parametrize("kept", [(0, 0), (-1, -1)], ids=["first", "last"])
def test_one_kept_pixel_says_all(size: tuple[int, int], kept: tuple[int, int]) -> None:
    is_kept = np.zeros(size, bool)
    is_kept[kept] = True
    values = np.where(is_kept[..., None], np.float32([3, -5, 7]), np.float32(100))
    assert np.abs(spread(values, is_kept) - np.float32([3, -5, 7])).max() < 0.01


@pytest.mark.parametrize("rows_kept", [1, 2, 4, 8])
def test_cell_is_what_it_keeps_as_soon_as_that_is_half_of_it(rows_kept: int) -> None:
    """Of less, as much as is missing to a half is the mean of all that is kept around it."""
    values, kept = np.zeros((8, 16, 3), np.float32), np.ones((8, 16), bool)
    values[:, :8], kept[rows_kept:, :8] = 100, False
    mean = 100 * rows_kept / (rows_kept + 8)
    weight = min(1, rows_kept / 4)
    made = spread(values, kept)
    assert np.abs(made[:, :4] - (weight * 100 + (1 - weight) * mean)).max() < 0.01
    assert not made[:, 12:].any()


def test_tone_offset_nothing_kept_changes_nothing() -> None:
    assert not tone_offset(_flat(120), _flat(113), _mask((0, 0, 100, 92))).any()


def test_paste_with_match_tone_leaves_no_box_and_keeps_the_rest_exact() -> None:
    init = Image.new("RGB", (100, 92), (120, 130, 140))
    tinted = np.full((92, 100, 3), (113, 131, 150), np.uint8)
    canvas = Canvas(init, _mask(), (0, 0, 100, 92))
    assert (paste(tinted, canvas, 0)[40, 40] == (113, 131, 150)).all()
    assert (paste(tinted, canvas, 0, match_tone=True) == np.asarray(init)).all()


SEAM_PX = 4


def _stripe(width: int, left: int = 20) -> Image.Image:
    mask = Image.new("L", (60, 40))
    mask.paste(255, (left, 0, left + width, 40))
    return mask


def _as_before(mask: Image.Image) -> np.ndarray:
    """The soft seam of thick parts: chessboard distance to the black, the frame's edge left out."""
    white = np.pad(np.asarray(mask), SEAM_PX + 1, "edge")
    distance = ndimage.distance_transform_cdt(white, "chessboard")
    inside = slice(SEAM_PX + 1, -SEAM_PX - 1)
    return np.minimum(distance[inside, inside] / (SEAM_PX + 1), 1)


@pytest.mark.parametrize("width", range(1, 20))
def test_edge_weight_is_whole_in_the_middle_of_a_stripe(width: int) -> None:
    row = edge_weight(_stripe(width), SEAM_PX)[20, 20 : 20 + width]
    assert row[(width - 1) // 2] == row[width // 2] == 1
    assert (row == row[::-1]).all()
    assert (np.diff(row[: (width + 1) // 2]) >= 0).all()
    assert (row == 1).all() or width > 4, "nothing of a scratch stays"


def test_edge_weight_of_a_stripe_at_the_edge_of_the_frame_is_that_of_half_a_stripe() -> None:
    half, whole = edge_weight(_stripe(4, 0), SEAM_PX), edge_weight(_stripe(8, 20), SEAM_PX)
    assert (half[:, :4] == whole[:, 24:28]).all()
    assert (half[:, 0] == 1).all()


@pytest.mark.parametrize(
    ("form", "box"),
    [
        pytest.param("rectangle", (20, 20, 30, 120), id="stripe-of-11"),
        pytest.param("rectangle", (-1, 20, 60, 120), id="at-the-edge-of-the-frame"),
        pytest.param("ellipse", (20, 20, 140, 140), id="large-disc"),
        pytest.param("ellipse", (20, 20, 36, 36), id="small-disc"),
    ],
)
def test_edge_weight_of_thick_parts_has_the_soft_seam(form: str, box: tuple[int, ...]) -> None:
    mask = Image.new("L", (160, 160))
    getattr(ImageDraw.Draw(mask), form)(box, fill=255)
    assert edge_weight(mask, SEAM_PX) == pytest.approx(_as_before(mask), abs=1e-6)


def test_edge_weight_of_a_line_does_not_depend_on_what_it_ends_in() -> None:
    mask = Image.new("L", (160, 60))
    draw = ImageDraw.Draw(mask)
    draw.ellipse((10, 10, 50, 50), fill=255)
    draw.rectangle((40, 29, 150, 32), fill=255)
    weight = edge_weight(mask, SEAM_PX)
    assert (weight[29:33, 54:151] == 1).all()
    assert weight[10, 30] == pytest.approx(0.2), "the disc keeps its seam"


@given(
    points=st.lists(st.tuples(st.integers(0, 47), st.integers(0, 47)), min_size=2, max_size=8),
    width=st.integers(1, 14),
    seam_px=st.integers(0, 9),
)
@settings(max_examples=60)
def test_edge_weight_touches_no_black_and_repaints_some_of_every_part(
    points: list[tuple[int, int]], width: int, seam_px: int
) -> None:
    mask = Image.new("L", (48, 48))
    ImageDraw.Draw(mask).line(points, fill=255, width=width)
    white = np.asarray(mask) > 0
    weight = edge_weight(mask, seam_px)
    assert not weight[~white].any()
    assert (weight[white] > 0).all()
    parts, count = ndimage.label(white, np.ones((3, 3)))
    assert (ndimage.maximum(weight, parts, range(1, count + 1)) == 1).all()


def test_paste_of_a_scratch_leaves_nothing_of_it() -> None:
    init = Image.new("RGB", (60, 40), "white")
    init.paste("black", (20, 0, 24, 40))
    canvas = Canvas(init, _stripe(4), (0, 0, 60, 40))
    assert (paste(np.full((40, 60, 3), 255, np.uint8), canvas, SEAM_PX) == 255).all()
