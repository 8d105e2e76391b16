"""What a job costs, told from its spec."""

import numpy as np
import pytest
from PIL import Image

from serve_app.config import EngineConfig
from serve_app.images.outpaint import grow
from serve_app.pipelines.compose import Canvas, Framing, crop_box
from serve_app.pipelines.cost import denoiser_work
from serve_app.pipelines.windows import advanced, first_window
from serve_app.types import ControlNetUse, Kind, Outpaint
from tests.builders import spec

CONFIG = EngineConfig(highres_strength=0.5, panorama_overlap=0.75)


def work(**changes):
    sides = {"height": 1000, "width": 1000, "steps": 10}
    return denoiser_work(spec(**{**sides, **changes}), 512, CONFIG)


def nets(*scales):
    return tuple(ControlNetUse(id="net", scale=scale) for scale in scales)


def growth(**sides):
    plan = {"overlap_px": 8, "multiple_px": 8, "max_side_px": 4096, "max_area_px": 4096**2}
    return {"kind": Kind.INPAINT, "outpaint": Outpaint(**{**plan, **sides})}


WINDOW = 20 * 0.512**2  # two rows of one window, ten steps


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"height": 512, "width": 768, **growth(right=256)}, WINDOW, id="a-little"),
        pytest.param(
            {"height": 512, "width": 1024, **growth(left=512)}, 20 * 0.64 * 0.512, id="twice"
        ),
        pytest.param({"height": 512, "width": 1536, **growth(left=1024)}, 3 * WINDOW, id="thrice"),
        pytest.param(
            {"height": 1536, "width": 512, "full_frame": True, **growth(top=1024)},
            20 * 1.536 * 0.512,
            id="whole-frame",
        ),
        pytest.param({"kind": Kind.INPAINT, "only_masked": True}, WINDOW, id="only-masked"),
        pytest.param(
            {
                "height": 512,
                "width": 512,
                **growth(anchor=(0.5, 0.5), width=512, height=512),
            },
            WINDOW,
            id="nothing-to-add",
        ),
        pytest.param({"kind": Kind.INPAINT}, 20, id="any-crop"),
        pytest.param(
            {"kind": Kind.INPAINT, "height": 256, "width": 256, "only_masked": True},
            20 * 0.256**2,
            id="only-masked-of-a-small-frame",
        ),
    ],
)
def test_work_counts_what_is_painted_of_a_frame(changes, expected):
    assert work(**changes) == pytest.approx(expected)


@pytest.mark.parametrize(
    "sides",
    [
        pytest.param({"left": 768, "right": 768}, id="both-sides"),
        pytest.param({"bottom": 1100}, id="down"),
        pytest.param({"top": 768, "bottom": 768}, id="above-and-below"),
        pytest.param({"left": 600, "top": 600, "right": 40}, id="corner"),
        pytest.param({"anchor": (1.0, 0.5), "width": 1800, "height": 512}, id="canvas"),
    ],
)
def test_work_counts_the_windows_that_a_painter_goes_through(sides):
    plan, framing = growth(**sides)["outpaint"], Framing(512, CONFIG.crop_padding_px)
    grown, mask = grow(Image.new("RGB", (512, 512)), None, plan)
    size = {"height": grown.height, "width": grown.width}
    asked = spec(**growth(**sides), **size, steps=10)
    canvas = Canvas(grown, mask, crop_box(mask, 512, framing.padding_px))
    step, count = first_window(canvas, asked, framing, CONFIG.outpaint_window), 0
    while step is not None:
        step, count = advanced(step, np.asarray(grown), asked, framing), count + 1
    assert count > 2
    assert work(**growth(**sides), **size) == pytest.approx(count * WINDOW)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 20),  # two rows of a megapixel, ten steps
        ({"samples": 3}, 60),
        ({"guidance_scale": 1}, 10),
        ({"self_attention": True}, 30),
        ({"self_attention": True, "guidance_scale": 1}, 20),
        ({"kind": Kind.IMG2IMG, "strength": 0.35}, 8),
        ({"kind": Kind.INPAINT, "strength": 0}, 2),  # one step runs at least
        ({"highres_fix": True}, 2 * (10 * 0.512**2 + 5)),
        ({"highres_fix": True, "height": 512, "width": 512}, 20 * 0.512**2),
        ({"panorama": True, "height": 512, "width": 1024}, 20 * 5 * 0.512**2),
        ({"panorama": True, "height": 256, "width": 256}, 20 * 0.256**2),
        ({"upscale": 3}, 20),
        ({"controlnets": nets(1)}, 30),
        ({"controlnets": nets(1, 0.3), "control_start": 0.5}, 30),
        ({"controlnets": nets(0)}, 20),
    ],
)
def test_work_counts_every_forward(changes, expected):
    assert work(**changes) == pytest.approx(expected)
