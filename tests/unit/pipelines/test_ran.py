"""What `meta` says of a job that ran otherwise than it was asked for."""

import types

import pytest
import torch
from PIL import Image

from serve_app.pipelines.compose import Canvas
from serve_app.pipelines.ran import ran
from serve_app.pipelines.samplers.names import will_run
from serve_app.pipelines.work import Painting
from serve_app.types import Fit, Kind
from tests.builders import spec

WHOLE = (0, 0, 64, 48)
PICTURE = Image.new("RGB", WHOLE[2:])


def masked(shade):
    mask = Image.new("L", WHOLE[2:], 0)
    mask.paste(shade, (0, 0, 8, 8))
    return mask


def told(canvas=None, asked=None, sampler=None, max_clip_skip=4, can_merge=True, **changes):
    """What is told of a job; of a model that can do all, unless it is said here."""
    job = spec(kind=Kind.INPAINT, width=64, height=48, **changes)
    ran_so = will_run(job) | {"scheduler": job.scheduler} | (sampler or {})
    checkpoint = types.SimpleNamespace(
        max_clip_skip=max_clip_skip,
        variants=types.SimpleNamespace(can_merge=can_merge),
        family=types.SimpleNamespace(has_negative=lambda scale: scale > 1),
        native_px=512,
        multiple_px=8,
    )
    painting = Painting(torch.zeros(3, 48, 64), torch.zeros(1), ran_so)
    return ran(asked or job, job, painting, canvas, checkpoint)


TOLD = {
    "all as it was asked": ({}, {}),
    "another sampler": (
        {"sampler": {"scheduler": "LCMScheduler"}},
        {"scheduler": "LCMScheduler"},
    ),
    "as many layers skipped as there are": ({"clip_skip": 4}, {}),
    "fewer layers skipped": ({"clip_skip": 5}, {"clip_skip": 4}),
    "merging that is impossible": ({"can_merge": False, "tomesd": True}, {"tomesd": "no"}),
    "merging that nobody wants": ({"can_merge": False, "tomesd": False}, {}),
    "guidance": ({"negative_prompt": "blur", "guidance_scale": 7}, {}),
    "no guidance": ({"negative_prompt": "blur", "guidance_scale": 1}, {"negative_prompt": ""}),
    "no picture of nothing": ({"negative_prompt": "", "guidance_scale": 1}, {}),
    "the whole frame": ({"canvas": Canvas(PICTURE, masked(255), WHOLE)}, {}),
    "shades": ({"canvas": Canvas(PICTURE, masked(254), WHOLE)}, {"mask_mode": "soft"}),
    "a part": (
        {"canvas": Canvas(PICTURE, masked(255), (8, 0, 40, 48))},
        {"crop": [8, 0, 40, 48]},
    ),
    "a part of another size": (
        {"canvas": Canvas(PICTURE, masked(1), (8, 0, 40, 48), (96, 64))},
        {"mask_mode": "soft", "crop": [8, 0, 40, 48], "painted": [96, 64]},
    ),
    "another prompt": (
        {"prompt": "a cat, oil", "asked": spec(prompt="a cat")},
        {"prompt": "a cat, oil"},
    ),
    "a size that was left open": (
        {"asked": spec(fit=Fit(area_px=1, multiple_px=8, min_px=8, max_px=64, max_area_px=64**2))},
        {"W": 64, "H": 48},
    ),
    "a fix of a small picture": ({"highres_fix": True}, {"highres_fix": "no"}),
    "a panorama of a small picture": ({"panorama": True}, {"panorama": "no"}),
}


@pytest.mark.parametrize(("job", "wanted"), TOLD.values(), ids=TOLD)
def test_what_ran_otherwise_is_told(job, wanted):
    assert told(**job) == wanted
