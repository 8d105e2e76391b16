"""A picture that grows, and the mask of what is new."""

import io

import numpy as np
import pytest
from PIL import Image

from serve_app import errors
from serve_app.images.codec import to_image
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
