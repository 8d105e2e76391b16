"""Small rules on a spec: the first pass of the highres fix, and words of embeddings."""

from fractions import Fraction

import pytest

from serve_app.pipelines.specs import first_size
from serve_app.types import Kind
from tests.builders import spec


def first_pass(height, width, native_px, multiple_px=8):
    return first_size(spec(height=height, width=width, highres_fix=True), native_px, multiple_px)


@pytest.mark.parametrize(
    ("height", "width", "native_px", "expected"),
    [
        pytest.param(1024, 1024, 512, (512, 512), id="square"),
        pytest.param(512, 1024, 512, (360, 720), id="wide"),
        pytest.param(640, 512, 512, (560, 448), id="little"),
        pytest.param(384, 512, 256, (216, 288), id="four-to-three"),
        pytest.param(512, 384, 256, (288, 216), id="three-to-four"),
        pytest.param(512, 512, 512, None, id="native"),
        pytest.param(256, 512, 512, None, id="small"),
        pytest.param(64, 1024, 256, None, id="no-larger"),
    ],
)
def test_first_pass_has_the_shape_asked_for(height, width, native_px, expected):
    assert first_pass(height, width, native_px) == expected


@pytest.mark.parametrize("multiple_px", [8, 16, 64])
@pytest.mark.parametrize("native_px", [256, 512, 768])
def test_first_pass_is_hardly_stretched_and_about_native(native_px, multiple_px):
    worst = {8: 0.02, 16: 0.035, 64: 0.16}[multiple_px]
    sides = range(native_px // 64 * 64, 1025, 64)
    asked = [(height, width) for height in sides for width in sides]
    found = {size: first_pass(*size, native_px, multiple_px) for size in asked}
    for (height, width), first in found.items():
        if first is None:
            assert height * width <= 1.6 * native_px**2
            continue
        assert not {side % multiple_px for side in first} - {0}
        assert abs(Fraction(first[1], first[0]) / Fraction(width, height) - 1) <= worst
        assert 0.6 <= first[0] * first[1] / native_px**2 <= 1.6
        assert first[0] * first[1] < height * width


@pytest.mark.parametrize(
    "changes", [{"highres_fix": False}, {"panorama": True}, {"kind": Kind.IMG2IMG}]
)
def test_picture_without_the_fix_has_no_first_pass(changes):
    asked = {"height": 1024, "width": 1024, "highres_fix": True} | changes
    assert first_size(spec(**asked), 512) is None
