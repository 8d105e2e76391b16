"""A picture that grows, and the mask of what is new."""

import io

import numpy as np
import pytest
from PIL import Image

from serve_app import errors
from serve_app.images.codec import to_image
from serve_app.images.outpaint import grow, prepared_size
from serve_app.images.prepare import prepare
from serve_app.types import Masking, Outpaint, Size
from tests.picture_files import file
from tests.unit.images.inputs import CONFIG, photo


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
    assert (init[16:, 96:] == old[:, -1:]).all(), "its border is carried on"
    assert (init[:16] == init[16]).all()
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


CENTRE, CORNER = (0.5, 0.5), (0.0, 0.0)


@pytest.mark.parametrize(
    ("changes", "picture", "size"),
    [
        pytest.param({}, (200, 100), (200, 100), id="its-own"),
        pytest.param({"width": 100}, (200, 90), (100, 45), id="width"),
        pytest.param({"height": 45}, (200, 90), (100, 45), id="height"),
        pytest.param({"width": 80, "height": 70}, (200, 100), (80, 70), id="both"),
        pytest.param({"width": 2}, (1000, 10), (2, 1), id="wide-strip"),
        pytest.param({"height": 2}, (10, 1000), (1, 2), id="upright-strip"),
        pytest.param({"anchor": CENTRE, "width": 128, "height": 128}, (200, 100), (128, 64)),
        pytest.param({"anchor": CENTRE, "width": 128, "height": 128}, (100, 200), (64, 128)),
        pytest.param({"anchor": CENTRE, "width": 128, "height": 128}, (50, 60), (50, 60)),
        pytest.param({"anchor": CENTRE, "width": 100}, (200, 90), (100, 45)),
        pytest.param({"anchor": CENTRE, "height": 45}, (200, 90), (100, 45)),
        pytest.param({"anchor": CORNER, "width": 2, "height": 2}, (1000, 10), (2, 1)),
        pytest.param({"anchor": CORNER, "width": 2, "height": 2}, (10, 1000), (1, 2)),
    ],
)
def test_picture_is_brought_to_the_size_asked_for_or_into_the_canvas(changes, picture, size):
    assert prepared_size(plan(**changes), picture) == size


@pytest.mark.parametrize(
    ("changes", "own", "corner", "size"),
    [
        pytest.param({"left": 10, "right": 10}, (96, 64), (10, 0), (120, 64), id="both-behind"),
        pytest.param({"right": 10}, (95, 64), (0, 0), (112, 64), id="right"),
        pytest.param({"top": 9}, (96, 61), (0, 11), (96, 72), id="above"),
        pytest.param({"bottom": 8, "multiple_px": 64}, (65, 64), (0, 0), (128, 128), id="coarse"),
        pytest.param(
            {"anchor": (0.25, 0.75), "width": 136, "height": 104}, (96, 64), (10, 30), (136, 104)
        ),
        pytest.param({"anchor": (1.0, 1.0), "width": 104}, (96, 64), (8, 0), (104, 64)),
        pytest.param({"anchor": (1.0, 1.0), "height": 72}, (96, 64), (0, 8), (96, 72)),
    ],
)
def test_picture_lies_where_the_plan_says_in_whole_multiples(changes, own, corner, size):
    made, mask = grow(Image.new("RGB", own), None, plan(overlap_px=0, **changes))
    assert made.size == mask.size == size
    old = Image.new("L", size, 255)
    old.paste(0, (*corner, corner[0] + own[0], corner[1] + own[1]))
    assert mask.tobytes() == old.tobytes()


@pytest.mark.parametrize("side", ["left", "top", "right", "bottom"])
@pytest.mark.parametrize("is_hard", [False, True])
def test_strip_fades_evenly_from_what_is_new(side, is_hard):
    """Of three pixels and a fourth that stays: three quarters, a half and a quarter of 255."""
    asked = plan(overlap_px=3, **{side: 8})
    mask = np.asarray(grow(Image.new("RGB", (16, 16)), None, asked, is_hard=is_hard)[1])
    fade = {"left": mask[4], "top": mask[:, 4], "right": mask[4, ::-1], "bottom": mask[::-1, 4]}
    shades = [255] * 3 if is_hard else [191, 128, 64]
    assert fade[side].tolist() == [255] * 8 + shades + [0] * 13


def test_strip_of_two_sides_is_as_light_as_the_nearer_one():
    mask = np.asarray(grow(Image.new("RGB", (16, 16)), None, plan(overlap_px=3, left=8, top=8))[1])
    assert mask[8:12, 8:12].tolist() == [
        [191, 191, 191, 191],
        [191, 128, 128, 128],
        [191, 128, 64, 64],
        [191, 128, 64, 0],
    ]


@pytest.mark.parametrize("side", ["left", "top", "right", "bottom"])
def test_largest_picture_that_is_painted_may_grow_to_its_limits(side):
    picture = Image.new("RGB", (64, 64))
    exact = {"max_side_px": 104, "max_area_px": 104 * 64}
    made, _ = grow(picture, None, plan(**exact, **{side: 40}))
    assert max(made.size) == 104
    for limit, most in exact.items():
        with pytest.raises(errors.InvalidImage, match=r"would have \d+ x \d+ pixels; at most"):
            grow(picture, None, plan(**exact | {limit: most - 1}, **{side: 40}))
