"""Small rules on a spec: what it names, its size and samples, what ran of its effects."""

from fractions import Fraction

import pytest

from serve_app import errors
from serve_app.pipelines.specs import (
    check_kind,
    first_size,
    named_add_ons,
    ran_effects,
    ran_size,
    run_strength,
    sample_specs,
    sized,
)
from serve_app.types import (
    ControlNetUse,
    Fit,
    IpAdapterUse,
    Kind,
    LoraUse,
    Picture,
    PreparedImages,
)
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


def test_kind_that_the_model_does_not_do_is_refused():
    check_kind(spec(kind=Kind.INPAINT), (Kind.TEXT2IMG, Kind.INPAINT))
    with pytest.raises(errors.InvalidRequest, match="does not do img2img") as caught:
        check_kind(spec(kind=Kind.IMG2IMG), (Kind.TEXT2IMG, Kind.INPAINT))
    assert [*caught.value.fields] == ["model_id"]


def test_every_add_on_is_named_but_nets_that_do_not_act():
    assert named_add_ons(spec()) == ()
    nets = tuple(ControlNetUse(id=name, scale=scale) for name, scale in (("n", 1), ("idle", 0)))
    asked = spec(
        loras=(LoraUse(id="l", strength=1), LoraUse(id="m", strength=0.5)), embeddings=("e",),
        controlnets=nets, vae="v", ip_adapter=IpAdapterUse(id="i", scale=1), upscaler="u",
    )  # fmt: skip
    assert named_add_ons(asked) == ("l", "m", "e", "n", "v", "i", "u")


OPEN = Fit(area_px=4096, multiple_px=8, min_px=8, max_px=1024, max_area_px=10**6)
INIT, HINT = Picture(b"", height=48, width=80), Picture(b"", height=40, width=56)


@pytest.mark.parametrize(
    ("fit", "images", "size"),
    [
        pytest.param(OPEN, PreparedImages(init=INIT, controls=(HINT,)), (48, 80), id="init"),
        pytest.param(OPEN, PreparedImages(controls=(None, HINT)), (40, 56), id="control"),
        pytest.param(OPEN, PreparedImages(), (64, 64), id="no-picture"),
        pytest.param(OPEN, None, (64, 64), id="nothing"),
        pytest.param(None, PreparedImages(init=INIT), (64, 64), id="asked"),
    ],
)
def test_size_that_is_left_to_the_pictures_is_theirs_and_told(fit, images, size):
    asked = spec(fit=fit)
    found = sized(asked, images)
    assert (found.height, found.width) == size
    assert ran_size(asked, found) == ({} if fit is None else {"W": size[1], "H": size[0]})
    assert (found.fit is None) is (size != (64, 64) or fit is None)


def test_samples_have_seeds_of_their_own_that_begin_anew_at_the_end():
    found = sample_specs(spec(samples=3, seed=2**32 - 2))
    assert [(one.samples, one.seed) for one in found] == [(1, 2**32 - 2), (1, 2**32 - 1), (1, 0)]


@pytest.mark.parametrize(
    ("kind", "strength", "steps", "ran"),
    [
        (Kind.TEXT2IMG, 0.5, 10, 10),
        (Kind.IMG2IMG, 0.5, 10, 5),
        (Kind.IMG2IMG, 0.01, 10, 1),
        (Kind.INPAINT, 1.0, 1, 1),
        (Kind.IMG2IMG, 0.0, 49, 1),
    ],
)
def test_strength_that_runs_is_one_step_at_least_and_all_at_most(kind, strength, steps, ran):
    found = run_strength(spec(kind=kind, strength=strength, steps=steps))
    assert int(found * steps) == ran
    assert found <= 1


@pytest.mark.parametrize(
    ("changes", "ran"),
    [
        ({}, {}),
        ({"highres_fix": True, "height": 1024, "width": 1024}, {"first_pass": [512, 512]}),
        ({"highres_fix": True, "height": 512, "width": 512}, {"highres_fix": "no"}),
        ({"panorama": True, "height": 512, "width": 1024}, {}),
        ({"panorama": True, "height": 512, "width": 512}, {"panorama": "no"}),
    ],
)
def test_effects_that_had_nothing_to_do_are_told(changes, ran):
    assert ran_effects(spec(**changes), native_px=512) == ran
