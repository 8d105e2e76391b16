"""Segmentation hints: each pixel in the colour that ADE20K's palette has for its class."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from serve_app import errors
from serve_app.images import codec
from serve_app.pipelines.hints.ade20k import PALETTE
from serve_app.pipelines.hints.segmentation import SegmentationHints

SIDE = 64
NAMES = {number: f"class {number}" for number in range(150)}


def segformer(names: dict[int, str] = NAMES) -> transformers.PreTrainedModel:
    return transformers.SegformerForSemanticSegmentation(
        transformers.SegformerConfig(
            depths=[1, 1, 1, 1],
            hidden_sizes=[8, 8, 16, 16],
            num_attention_heads=[1, 1, 1, 1],
            mlp_ratios=[2, 2, 2, 2],
            decoder_hidden_size=8,
            id2label=names,
        )
    )


def upernet() -> transformers.PreTrainedModel:
    backbone = transformers.ConvNextConfig(
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    return transformers.UperNetForSemanticSegmentation(
        transformers.UperNetConfig(
            backbone_config=backbone,
            hidden_size=8,
            auxiliary_channels=8,
            auxiliary_in_channels=16,
            id2label=NAMES,
        )
    )


def mask2former() -> transformers.PreTrainedModel:
    backbone = transformers.SwinConfig(
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 1, 1],
        window_size=2,
        image_size=SIDE,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    model = transformers.Mask2FormerForUniversalSegmentation(
        transformers.Mask2FormerConfig(
            backbone_config=backbone,
            feature_size=32,
            mask_feature_size=16,
            hidden_dim=16,
            encoder_feedforward_dim=16,
            dim_feedforward=16,
            encoder_layers=1,
            decoder_layers=2,
            num_attention_heads=2,
            num_queries=12,
            id2label=NAMES,
        )
    )
    with torch.no_grad():  # as sure of something as a trained one
        for name, weight in model.named_parameters():
            if "class_predictor" in name or "mask_embedder" in name:
                weight.mul_(20)
    return model


MODELS: dict[str, tuple[Callable[[], transformers.PreTrainedModel], str]] = {
    "segformer": (segformer, "SegformerImageProcessor"),
    "upernet": (upernet, "SegformerImageProcessor"),
    "mask2former": (mask2former, "Mask2FormerImageProcessor"),
}


def written(model: transformers.PreTrainedModel, kind: str, folder: Path) -> Path:
    model.save_pretrained(folder)
    settings = {
        "image_processor_type": kind,
        "do_resize": True,
        "size": {"height": SIDE, "width": SIDE},
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def picture(width: int = 72, height: int = 48) -> Image.Image:
    small = np.random.default_rng(1).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def drawn(folder: Path, image: Image.Image) -> np.ndarray:
    made = SegmentationHints(folder, "cpu").draw(codec.encode(image))
    return np.asarray(codec.to_image(made))


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_classes_are_those_of_the_pipeline_of_transformers(name: str, tmp_path: Path) -> None:
    make, kind = MODELS[name]
    torch.manual_seed(3)
    folder = written(make(), kind, tmp_path)
    made = drawn(folder, picture())
    stock = transformers.pipeline("image-segmentation", model=str(folder), device="cpu")
    segments = stock(picture(), subtask="semantic")
    assert len(segments) > 1
    wanted = np.zeros((48, 72, 3), np.uint8)
    for segment in segments:
        wanted[np.asarray(segment["mask"]) > 0] = PALETTE[int(segment["label"].split()[1])]
    assert (made == wanted).all()


def test_large_picture_is_painted_by_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(3)
    folder = written(segformer(), "SegformerImageProcessor", tmp_path)
    sizes: list[tuple[int, ...]] = []
    enlarge = torch.nn.functional.interpolate

    def seen(values: torch.Tensor, size: object = None, **options: object) -> torch.Tensor:
        made = enlarge(values, size, **options)
        sizes.append(tuple(made.shape))
        return made

    monkeypatch.setattr(torch.nn.functional, "interpolate", seen)
    made = drawn(folder, picture(2048, 1024))
    assert made.shape == (1024, 2048, 3)
    assert max(size[-2] * size[-1] for size in sizes if size[1] == 150) == 256 * 512
    blocks = made.reshape(256, 4, 512, 4, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()


def test_palette_has_the_published_colours() -> None:
    published = {
        0: (120, 120, 120),  # wall
        1: (180, 120, 120),  # building
        2: (6, 230, 230),  # sky
        4: (4, 200, 3),  # tree
        12: (150, 5, 61),  # person
        20: (0, 102, 200),  # car
        149: (92, 0, 255),  # flag
    }
    assert PALETTE.shape == (150, 3)
    for number, colour in published.items():
        assert tuple(PALETTE[number]) == colour
    alike = [number for number in range(150) if (PALETTE[number] == PALETTE).all(1).sum() > 1]
    assert alike == [6, 48]


def test_model_of_other_classes_fails_the_job(tmp_path: Path) -> None:
    streets = {number: f"class {number}" for number in range(19)}
    written(segformer(streets), "SegformerImageProcessor", tmp_path)
    with pytest.raises(errors.GenerationFailed, match="19 classes, not the 150 of ADE20K"):
        drawn(tmp_path, picture())
