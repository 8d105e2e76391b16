"""Packs trained parts into the folders that are shipped: stock diffusers layout, fp16.

Run as ``python -m training.export``. Both checkpoints hold the same autoencoder, tokenizer and
text encoder, so each folder loads on its own.
"""

import argparse
from pathlib import Path
from typing import TypeAlias, TypeVar

import torch
from diffusers import (
    AutoencoderKL,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextModel

from training.diffusion import build_scheduler
from training.paths import Workspace, add_arguments
from training.text import build_tokenizer

__all__ = ["export_pipelines"]

Pipeline: TypeAlias = StableDiffusionPipeline | StableDiffusionInpaintPipeline
Part = TypeVar("Part", AutoencoderKL, UNet2DConditionModel)
_FOLDERS = {
    "demo-inpaint": (StableDiffusionInpaintPipeline, "unet-inpaint"),
    "demo": (StableDiffusionPipeline, "unet-plain"),
}


def export_pipelines(options: Workspace) -> None:
    """Writes every checkpoint whose UNet exists, and the alternative autoencoder."""
    for name, (kind, unet) in _FOLDERS.items():
        if (options.work / unet).exists():
            _pipeline(kind, options.work, unet).save_pretrained(options.out / name)
    if (options.work / "vae-warm").exists():
        _part(AutoencoderKL, options.work / "vae-warm").save_pretrained(options.out / "demo-vae")


def _part(kind: type[Part], folder: Path) -> Part:
    """Loads a network in half precision; its config forgets the folder it came from."""
    part = kind.from_pretrained(folder, dtype=torch.float16)
    part.register_to_config(_name_or_path="")
    return part


def _pipeline(kind: type[Pipeline], work: Path, unet: str) -> Pipeline:
    return kind(
        vae=_part(AutoencoderKL, work / "vae-polished"),
        text_encoder=CLIPTextModel.from_pretrained(work / "text_encoder", dtype=torch.float16),
        tokenizer=build_tokenizer(),
        unet=_part(UNet2DConditionModel, work / unet),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def main() -> None:
    """Writes the checkpoints."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    export_pipelines(Workspace.from_arguments(parser.parse_args()))


if __name__ == "__main__":
    main()
