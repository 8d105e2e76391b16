"""Depth hints: what a model of transformers tells of a picture, with the near parts bright.

And normals, which are made of such depths.
"""

import json
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers.models.zoedepth import image_processing_pil_zoedepth

from serve_app import errors
from serve_app.config import HintsConfig
from serve_app.images import codec
from serve_app.pipelines.hints.depth import DepthHints, NormalHints
from serve_app.pipelines.hints.hint_models import HintModels
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


def dinov2(stages: list[str]) -> transformers.Dinov2Config:
    return transformers.Dinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
        out_features=stages,
        reshape_hidden_states=False,
    )


STAGES = ["stage1", "stage2", "stage3", "stage4"]


def anything(**settings: object) -> transformers.PreTrainedModel:
    return transformers.DepthAnythingForDepthEstimation(
        transformers.DepthAnythingConfig(
            backbone_config=dinov2(STAGES),
            patch_size=14,
            reassemble_hidden_size=16,
            neck_hidden_sizes=[8, 8, 8, 8],
            fusion_hidden_size=8,
            head_hidden_size=8,
            **settings,
        )
    )


def dpt_of_distances() -> transformers.PreTrainedModel:
    return transformers.DPTForDepthEstimation(
        transformers.DPTConfig(
            backbone_config=dinov2(STAGES),
            hidden_size=16,
            patch_size=14,
            neck_hidden_sizes=[8, 8, 8, 8],
            fusion_hidden_size=8,
            is_hybrid=False,
        )
    )


def zoe() -> transformers.PreTrainedModel:
    return transformers.ZoeDepthForDepthEstimation(
        transformers.ZoeDepthConfig(
            backbone_config=transformers.BeitConfig(
                hidden_size=16,
                num_hidden_layers=4,
                num_attention_heads=2,
                intermediate_size=16,
                image_size=SIDE,
                patch_size=8,
                out_features=STAGES,
                reshape_hidden_states=False,
                use_relative_position_bias=True,
                use_absolute_position_embeddings=False,
            ),
            neck_hidden_sizes=[8, 8, 8, 8],
            fusion_hidden_size=8,
            bottleneck_features=8,
            num_relative_features=8,
            bin_embedding_dim=8,
            num_attractors=[4, 2, 2, 1],
        )
    )


MODELS: dict[str, tuple[Callable[[], transformers.PreTrainedModel], int]] = {
    "tells-near": (dpt, 1),
    "tells-far": (glpn, -1),
    "anything": (anything, 1),
    "anything-in-metres": (lambda: anything(depth_estimation_type="metric", max_depth=20), -1),
    "dpt-in-metres": (dpt_of_distances, -1),
    "padded": (zoe, -1),
}
PROCESSORS = {"padded": "ZoeDepthImageProcessor"}
SIDES = {"anything": 28, "anything-in-metres": 28, "dpt-in-metres": 28}


@pytest.fixture(params=MODELS)
def told(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, int]:
    """Write a random model; gives its folder, and 1 if it tells how near things are, else -1."""
    make, sign = MODELS[request.param]
    kind = PROCESSORS.get(request.param, "DPTImageProcessor")
    write(make, tmp_path, kind, SIDES.get(request.param, SIDE))
    return tmp_path, sign


def write(
    make: Callable[[], transformers.PreTrainedModel],
    folder: Path,
    kind: str = "DPTImageProcessor",
    side: int = SIDE,
) -> None:
    torch.manual_seed(3)
    make().save_pretrained(folder)
    settings = {
        "image_processor_type": kind,
        "do_resize": True,
        "size": {"height": side, "width": side},
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


@pytest.fixture
def without_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let transformers' ZoeDepth have the one function that it takes from there."""

    def resize(depth: torch.Tensor, size: list[int], **_: object) -> torch.Tensor:
        return torch.nn.functional.interpolate(depth[None], size, mode="bicubic")[0]

    modes = types.SimpleNamespace(BICUBIC="bicubic")
    functions = types.SimpleNamespace(resize=resize, InterpolationMode=modes)
    monkeypatch.setattr(image_processing_pil_zoedepth, "tvF", functions, raising=False)


@pytest.mark.usefixtures("without_torchvision")
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


def test_large_picture_is_seen_at_a_bounded_size(tmp_path: Path) -> None:
    write(glpn, tmp_path, "GLPNImageProcessor")
    hints, seen = DepthHints(tmp_path, "cpu"), []
    hints._loaded[0].register_forward_pre_hook(
        lambda _, args, inputs: seen.append(tuple(inputs["pixel_values"].shape)), with_kwargs=True
    )
    large = codec.to_image(picture()).resize((2048, 256), Image.Resampling.BICUBIC)
    made = levels(hints.draw(codec.encode(large)))
    assert seen == [(1, 3, 128, 1024)]
    assert made.shape == (256, 2048, 3)
    assert (made.min(), made.max()) == (0, 255)


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


def write_steep(folder: Path) -> None:
    """Write a model that tells some hundreds, as MiDaS does."""
    write(dpt, folder)
    told = transformers.pipeline("depth-estimation", model=str(folder), device="cpu")
    depths = told(codec.to_image(picture()))["predicted_depth"]
    last = told.model.head.head[4]  # before a ReLU
    with torch.no_grad():
        for weight in last.parameters():
            weight.mul_(300 / (depths.max() - depths.min()))
    told.model.save_pretrained(folder)


def test_normals_are_the_slopes_of_the_depths(tmp_path: Path) -> None:
    write_steep(tmp_path)
    made = levels(NormalHints(tmp_path, "cpu").draw(picture()))
    stock = transformers.pipeline("depth-estimation", model=str(tmp_path), device="cpu")
    depth = stock(codec.to_image(picture()))["predicted_depth"].double().numpy()
    beyond = np.pad(depth, 1, "reflect")  # as OpenCV goes on at the border
    down = beyond[2:] - beyond[:-2]
    across = beyond[:, 2:] - beyond[:, :-2]
    wanted = np.stack(
        [
            across[:-2] + 2 * across[1:-1] + across[2:],
            down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:],
            np.zeros_like(depth),
        ],
        axis=2,
    )
    share = (depth - depth.min()) / (depth.max() - depth.min())
    wanted[share < 0.4] = 0
    wanted[..., 2] = 2 * np.pi
    wanted = wanted / np.sqrt((wanted**2).sum(2, keepdims=True)) * 127.5 + 127.5
    assert np.ptp(made[..., 0]) > 0
    assert np.abs(made - np.floor(wanted)).max() <= 1
    assert (made[share < 0.39] == (127, 127, 255)).all()


def test_normals_are_not_made_of_other_units_than_those_of_midas(tmp_path: Path) -> None:
    write(glpn, tmp_path)
    with pytest.raises(errors.GenerationFailed, match="MiDaS"):
        NormalHints(tmp_path, "cpu").draw(picture())
