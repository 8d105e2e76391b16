"""Depth hints: what a model of transformers tells of a picture, with the near parts bright."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from serve_app import errors
from serve_app.config import HintsConfig
from serve_app.images import codec
from serve_app.pipelines.depth import DepthHints
from serve_app.pipelines.hint_models import HintModels
from serve_app.types import ControlType, Picture

SIDE = 32


def dpt() -> transformers.PreTrainedModel:
    return transformers.DPTForDepthEstimation(
        transformers.DPTConfig(
            hidden_size=16,
            num_hidden_layers=4,
            num_attention_heads=2,
            intermediate_size=16,
            image_size=SIDE,
            patch_size=8,
            backbone_out_indices=[0, 1, 2, 3],
            neck_hidden_sizes=[8, 8, 8, 8],
            fusion_hidden_size=8,
        )
    )


def glpn() -> transformers.PreTrainedModel:
    return transformers.GLPNForDepthEstimation(
        transformers.GLPNConfig(
            depths=[1, 1, 1, 1],
            hidden_sizes=[8, 8, 16, 16],
            num_attention_heads=[1, 1, 1, 1],
            mlp_ratios=[2, 2, 2, 2],
            decoder_hidden_size=8,
        )
    )


MODELS: dict[str, tuple[Callable[[], transformers.PreTrainedModel], int]] = {
    "tells-near": (dpt, 1),
    "tells-far": (glpn, -1),
}


@pytest.fixture(params=MODELS)
def told(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, int]:
    """Write a random model; gives its folder, and 1 if it tells how near things are, else -1."""
    make, sign = MODELS[request.param]
    write(make, tmp_path)
    return tmp_path, sign


def write(make: Callable[[], transformers.PreTrainedModel], folder: Path) -> None:
    torch.manual_seed(3)
    make().save_pretrained(folder)
    settings = {
        "image_processor_type": "DPTImageProcessor",
        "do_resize": True,
        "size": {"height": SIDE, "width": SIDE},
        "resample": 2,
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


def picture() -> Picture:
    """Make a picture of another size and shape than the model looks at."""
    small = np.random.default_rng(1).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    large = Image.fromarray(small).resize((72, 48), Image.Resampling.BICUBIC)
    return codec.encode(large)


def levels(made: Picture) -> np.ndarray:
    return np.asarray(codec.to_image(made)).astype(int)


def test_hint_is_what_the_pipeline_of_transformers_tells(told: tuple[Path, int]) -> None:
    folder, sign = told
    made = levels(DepthHints(folder, "cpu").draw(picture()))
    assert made.shape == (48, 72, 3)
    assert (made == made[..., :1]).all()
    assert (made.min(), made.max()) == (0, 255)
    stock = transformers.pipeline("depth-estimation", model=str(folder), device="cpu")
    depths = sign * stock(codec.to_image(picture()))["predicted_depth"].numpy()
    wanted = (depths - depths.min()) / (depths.max() - depths.min()) * 255
    assert np.abs(made[..., 0] - wanted).max() <= 2


def test_equal_hints_are_drawn_once_and_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(dpt, tmp_path)
    calls: list[Picture] = []
    draw = DepthHints.draw

    def counted(self: DepthHints, one: Picture) -> Picture:
        calls.append(one)
        return draw(self, one)

    monkeypatch.setattr(DepthHints, "draw", counted)
    models, shown = HintModels(HintsConfig(depth=tmp_path)), picture()
    hints = (ControlType.DEPTH, ControlType.TILE, None, ControlType.INPAINT, ControlType.DEPTH)
    drawn = models.draw(hints, (shown, shown, shown, None, shown))
    assert len(calls) == 1
    assert drawn[1:4] == (shown, shown, None)
    assert drawn[0] == drawn[4] != shown


def spoil(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    save_file({name: tensor / 0 for name, tensor in tensors.items()}, file, {"format": "pt"})


def shorten(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors.pop(next(name for name in tensors if "head" in name))
    save_file(tensors, file, {"format": "pt"})


@pytest.mark.parametrize(
    "harm",
    [spoil, shorten, lambda folder: (folder / "config.json").unlink()],
    ids=["nan", "a-layer-short", "no-model"],
)
def test_bad_model_fails_the_job_and_no_path_is_told(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    write(dpt, tmp_path)
    harm(tmp_path)
    with pytest.raises(errors.GenerationFailed) as failure:
        DepthHints(tmp_path, "cpu").draw(picture())
    assert str(tmp_path) not in failure.value.public_message


def test_model_that_nobody_names_fails_the_job() -> None:
    with pytest.raises(errors.GenerationFailed):
        HintModels(HintsConfig()).draw((ControlType.DEPTH,), (picture(),))
