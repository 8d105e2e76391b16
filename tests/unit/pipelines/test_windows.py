"""Windows of pictures that grow: each new pixel is painted, outward from what is known."""

import numpy as np
import pytest
from PIL import Image

from serve_app.images.outpaint import grow
from serve_app.pipelines.compose import Canvas, Framing, crop_box
from serve_app.pipelines.windows import advanced, first_window, windows_after
from serve_app.types import GenerationSpec, Kind, Outpaint

FRAMING = Framing(64, 8)


def spec_of(plan: Outpaint, **masking: object) -> GenerationSpec:
    values = {
        "model_id": "m",
        "kind": Kind.INPAINT,
        "prompt": "",
        "height": 64,
        "width": 64,
        "steps": 1,
        "scheduler": "DDIMScheduler",
        "seed": 0,
        "outpaint": plan,
        "masking": masking,
    }
    return GenerationSpec.model_validate(values)


def plan_of(**sides: int) -> Outpaint:
    values = {"overlap_px": 8, "multiple_px": 8, "max_side_px": 4096, "max_area_px": 4096**2}
    return Outpaint.model_validate(values | sides)


def opened(spec: GenerationSpec) -> Canvas:
    plan = spec.outpaint
    assert plan is not None
    picture = Image.new("RGB", (96, 64), (10, 20, 30))
    canvas, mask = grow(picture, None, plan, is_hard=spec.masking.mode == "hard")
    return Canvas(canvas, mask, crop_box(mask, FRAMING.native_px, FRAMING.padding_px))


@pytest.mark.parametrize("mode", ["auto", "hard"])
@pytest.mark.parametrize(
    "sides",
    [
        pytest.param({"right": 200}, id="right"),
        pytest.param({"left": 96, "right": 96}, id="both"),
        pytest.param({"left": 70, "top": 70, "right": 70, "bottom": 70}, id="all-round"),
        pytest.param({"top": 300}, id="up"),
    ],
)
def test_every_new_pixel_is_painted_beside_known_ones(sides: dict[str, int], mode: str) -> None:
    spec = spec_of(plan_of(**sides), mode=mode)
    canvas = opened(spec)
    whole = np.asarray(canvas.mask)
    known, touched = whole != 255 if mode == "auto" else whole == 0, np.zeros(whole.shape, bool)
    step: Canvas | None = first_window(canvas, spec, FRAMING, 1.5)
    total = windows_after(step, FRAMING) + 1
    count = 0
    while step is not None:
        left, top, right, bottom = step.box
        window = (slice(top, bottom), slice(left, right))
        assert (right - left, bottom - top) == (64, 64)
        assert left % 8 == top % 8 == 0
        assert known[window].mean() >= 0.25, "there is something to go on with"
        assert (np.asarray(step.mask)[whole == 0][~touched[whole == 0]] == 0).all()
        touched[window] |= np.asarray(step.mask)[window] > 0
        known[window] = True
        frame = np.asarray(step.init).copy()
        frame[window] = 255
        step = advanced(step, frame, spec, FRAMING)
        count += 1
    assert touched[whole == 255].all()
    assert count == total > 1


def test_a_small_addition_is_painted_in_one_piece() -> None:
    spec = spec_of(plan_of(right=32))
    canvas = opened(spec)
    assert first_window(canvas, spec, FRAMING, 1.5) is canvas
    assert windows_after(canvas, FRAMING) == 0
    frame = np.asarray(canvas.init)
    assert advanced(canvas, frame, spec, FRAMING) is None


def test_nothing_follows_a_job_without_a_mask() -> None:
    assert windows_after(None, FRAMING) == 0
    assert windows_after(Canvas(Image.new("RGB", (64, 64)), None, (0, 0, 64, 64)), FRAMING) == 0


def test_nothing_follows_a_crop_that_lies_on_no_cells() -> None:
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (13, 21, 30, 35))
    canvas = Canvas(Image.new("RGB", (64, 64)), mask, (11, 19, 33, 37), (64, 64))
    assert windows_after(canvas, FRAMING) == 0
