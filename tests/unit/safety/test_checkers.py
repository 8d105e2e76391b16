"""What the contract suite cannot say of each checker: broken checkpoints, broken checks."""

import json
import subprocess
import sys

import pytest
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPImageProcessorPil

from serve_app import errors
from serve_app.images.codec import encode
from serve_app.safety.absent import AbsentChecker
from serve_app.safety.diffusers_checker import DiffusersChecker
from serve_app.testing.safety import FakeChecker
from serve_app.types import Pictures, SafetyAction

torch.set_num_threads(1)
JOB = Pictures((encode(Image.new("RGB", (64, 64), "teal")),), (False,), 1.0, {})


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint of random weights, to be broken."""
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
    StableDiffusionSafetyChecker(config).save_pretrained(tmp_path / "safety_checker")
    CLIPImageProcessorPil().save_pretrained(tmp_path / "feature_extractor")
    return tmp_path


def rewrite(checkpoint, change) -> None:
    path = checkpoint / "safety_checker" / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(errors.SafetyCheckFailed):
        DiffusersChecker(tmp_path / "nowhere")


def test_non_finite_weights_are_refused_since_they_would_flag_nothing(checkpoint):
    rewrite(checkpoint, lambda weights: weights["concept_embeds"].fill_(float("nan")))
    with pytest.raises(errors.SafetyCheckFailed, match="concept_embeds is not finite"):
        DiffusersChecker(checkpoint)


def test_missing_weights_are_refused_since_they_would_be_random(checkpoint):
    rewrite(checkpoint, lambda weights: weights.pop("visual_projection.weight"))
    with pytest.raises(errors.SafetyCheckFailed, match="missing_keys"):
        DiffusersChecker(checkpoint)


def test_weights_of_another_shape_are_refused(checkpoint):
    rewrite(checkpoint, lambda weights: weights.update(concept_embeds=torch.ones(17, 5)))
    with pytest.raises(errors.SafetyCheckFailed):
        DiffusersChecker(checkpoint)


def test_truncated_weights_are_refused(checkpoint):
    path = checkpoint / "safety_checker" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(errors.SafetyCheckFailed):
        DiffusersChecker(checkpoint)


def test_weight_names_and_extractor_of_published_checkpoints_are_understood(checkpoint):
    """They come from older releases: one more `vision_model.`, a CLIPFeatureExtractor."""

    def age(weights):
        for name in [name for name in weights if name.startswith("vision_model.")]:
            weights[f"vision_model.{name}"] = weights.pop(name)

    rewrite(checkpoint, age)
    path = checkpoint / "feature_extractor" / "preprocessor_config.json"
    old = {"feature_extractor_type": "CLIPFeatureExtractor", "size": 32, "crop_size": 32}
    path.write_text(json.dumps(old))
    assert len(DiffusersChecker(checkpoint).check(JOB, SafetyAction.BLUR).nsfw) == 1


def test_only_the_flagged_picture_is_replaced():
    good, bad = encode(Image.new("RGB", (64, 64), "teal")), encode(Image.new("RGB", (64, 64)))
    checker = FakeChecker(lambda picture: picture == bad)
    checked = checker.check(Pictures((good, bad), (False, False), 1.0, {}), SafetyAction.TEXT)
    assert checked.nsfw == (False, True)
    assert checked.pictures[0] is good
    assert checked.pictures[1] != bad


def test_check_that_breaks_lets_nothing_out():
    def broken(picture):
        raise RuntimeError("device lost")

    with pytest.raises(errors.SafetyCheckFailed):
        FakeChecker(broken).check(JOB, SafetyAction.BLUR)


def test_model_that_breaks_lets_nothing_out(checkpoint, monkeypatch):
    checker = DiffusersChecker(checkpoint)

    def broken(*args, **kwargs):
        raise torch.OutOfMemoryError("device lost")

    monkeypatch.setattr(StableDiffusionSafetyChecker, "forward", broken)
    with pytest.raises(errors.SafetyCheckFailed):
        checker.check(JOB, SafetyAction.BLUR)


def test_absent_checker_lets_nothing_out():
    with pytest.raises(errors.SafetyCheckFailed):
        AbsentChecker().check(JOB, SafetyAction.BLUR)


def test_naming_the_checker_does_not_import_torch():
    code = "import sys, serve_app.safety.diffusers_checker; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
