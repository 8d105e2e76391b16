"""One suite for every `SafetyChecker`: the real one on tiny random weights, and the fake."""

import io
from pathlib import Path

import pytest
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image, ImageDraw
from transformers import CLIPConfig, CLIPImageProcessorPil

from serve_app import errors
from serve_app.safety.diffusers_checker import DiffusersChecker
from serve_app.testing.safety import FakeChecker
from serve_app.types import Picture, Pictures, SafetyAction

torch.set_num_threads(1)
COSINE_NEVER = 2.0  # above every cosine: nothing is flagged
COSINE_ALWAYS = -2.0


def save_checker(folder: Path, threshold: float) -> Path:
    """Save a checkpoint of random weights that flags everything or nothing."""
    small = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    text = {"vocab_size": 8, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = CLIPConfig(
        text_config=small | text,
        vision_config=small | {"image_size": 32, "patch_size": 16},
        projection_dim=8,
    )
    torch.manual_seed(0)
    model = StableDiffusionSafetyChecker(config)
    torch.nn.init.constant_(model.concept_embeds_weights, threshold)
    torch.nn.init.constant_(model.special_care_embeds_weights, threshold)
    model.save_pretrained(folder / "safety_checker")
    edge = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPImageProcessorPil(**edge).save_pretrained(folder / "feature_extractor")
    return folder


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[bool, Path]:
    return {
        flags: save_checker(
            tmp_path_factory.mktemp("checker"), COSINE_ALWAYS if flags else COSINE_NEVER
        )
        for flags in (False, True)
    }


@pytest.fixture(params=["fake", "diffusers"])
def make(request, checkpoints):
    """Make a checker that flags everything or nothing."""
    if request.param == "fake":
        return lambda flags: FakeChecker(lambda picture: flags)
    return lambda flags: DiffusersChecker(checkpoints[flags])


def picture(width: int = 96, height: int = 64) -> Picture:
    image = Image.effect_noise((width, height), 80).convert("RGB")
    ImageDraw.Draw(image).ellipse((8, 8, width - 8, height - 8), outline="red")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return Picture(buffer.getvalue(), height=height, width=width)


def pictures(*items: Picture) -> Pictures:
    return Pictures(items, (False,) * len(items), 1.5, {"scheduler": "DDIMScheduler"})


def test_checker_that_flags_nothing_leaves_pictures_untouched(make):
    job = pictures(picture(), picture())
    assert make(False).check(job, SafetyAction.BLUR) == job


@pytest.mark.parametrize("action", SafetyAction)
def test_checker_that_flags_replaces_every_picture(make, action):
    job = pictures(picture(), picture(64, 96))
    checked = make(True).check(job, action)
    assert checked.nsfw == (True, True)
    for before, after in zip(job.pictures, checked.pictures, strict=True):
        assert after.data != before.data
        assert (after.height, after.width) == (before.height, before.width)
        with Image.open(io.BytesIO(after.data)) as image:
            assert (image.format, image.mode) == ("PNG", "RGB")
            assert image.size == (after.width, after.height)


def test_checker_keeps_what_the_generator_reported(make):
    checked = make(True).check(pictures(picture()), SafetyAction.BLACK)
    assert checked.generation_time_s == 1.5
    assert checked.ran == {"scheduler": "DDIMScheduler"}


def test_checker_fails_closed_on_a_picture_that_it_cannot_read(make):
    job = pictures(picture(), Picture(b"no picture", height=8, width=8))
    with pytest.raises(errors.SafetyCheckFailed):
        make(False).check(job, SafetyAction.BLUR)


def test_checker_accepts_grey_pictures(make):
    buffer = io.BytesIO()
    Image.new("L", (40, 40), 90).save(buffer, "PNG")
    job = pictures(Picture(buffer.getvalue(), height=40, width=40))
    assert make(True).check(job, SafetyAction.PIXELATE).nsfw == (True,)
