"""What a job costs, told from its spec."""

import pytest

from serve_app.config import EngineConfig
from serve_app.pipelines.cost import denoiser_work
from serve_app.types import ControlNetUse, Kind
from tests.builders import spec

CONFIG = EngineConfig(highres_strength=0.5, panorama_overlap=0.75)


def work(**changes):
    sides = {"height": 1000, "width": 1000, "steps": 10}
    return denoiser_work(spec(**{**sides, **changes}), 512, CONFIG)


def nets(*scales):
    return tuple(ControlNetUse(id="net", scale=scale) for scale in scales)


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
