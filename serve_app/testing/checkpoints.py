"""Writes small Stable Diffusion checkpoints with random weights, in diffusers' folder format.

They load through the same code as real ones and need no download: for tests, for a first start
and for benchmarks of the machinery. Their pictures are coloured noise.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
)

__all__ = [
    "RandomUNet",
    "byte_tokenizer",
    "random_safety_checker",
    "random_text_encoder",
    "random_unet",
    "random_vae",
    "write_random_inpaint",
    "write_random_text2img",
]

_TEXT_WIDTH = 32  # width of the text encoder's states, and of cross attention


@dataclass(frozen=True, slots=True)
class RandomUNet:
    """Shape of a random UNet.

    channels: one entry per level; each level after the first works on half the side.
    attention: levels with cross attention; it is dear on the first ones of a large picture.
    """

    in_channels: int = 9
    channels: tuple[int, ...] = (16, 32, 32, 32)
    attention: tuple[bool, ...] = (False, False, True, False)
    layers: int = 1
    sample_size: int = 64
    prediction_type: str = "epsilon"


def write_random_inpaint(folder: Path, seed: int = 0, unet: RandomUNet | None = None) -> None:
    """Write an inpainting checkpoint: a UNet with 9 input channels, unless `unet` says otherwise.

    30 guided UniPC steps at 512 x 512 take about two seconds on one CPU core.
    """
    _write(folder, seed, unet or RandomUNet())


def write_random_text2img(folder: Path, seed: int = 0, unet: RandomUNet | None = None) -> None:
    """Write a plain checkpoint: a UNet with 4 input channels, which serves all three kinds."""
    _write(folder, seed, unet or RandomUNet(in_channels=4))


def _write(folder: Path, seed: int, shape: RandomUNet) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = byte_tokenizer()
        pipeline = StableDiffusionPipeline(
            vae=random_vae(),
            text_encoder=random_text_encoder(tokenizer),
            tokenizer=tokenizer,
            unet=random_unet(shape),
            scheduler=DDIMScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                clip_sample=False,
                set_alpha_to_one=False,
                steps_offset=1,
                prediction_type=shape.prediction_type,
            ),
            safety_checker=random_safety_checker(),
            feature_extractor=CLIPImageProcessor(size=224, crop_size=224),
        )
    pipeline.save_pretrained(folder, safe_serialization=True)


def random_unet(shape: RandomUNet) -> UNet2DConditionModel:
    """Make a UNet with weights drawn from torch's global generator."""
    down = ["CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in shape.attention]
    up = ["CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in shape.attention]
    return UNet2DConditionModel(
        sample_size=shape.sample_size,
        in_channels=shape.in_channels,
        out_channels=4,
        block_out_channels=shape.channels,
        down_block_types=tuple(down),
        up_block_types=tuple(reversed(up)),
        layers_per_block=shape.layers,
        norm_num_groups=8,
        attention_head_dim=4,
        cross_attention_dim=_TEXT_WIDTH,
    )


def random_vae() -> AutoencoderKL:
    """Make a VAE, 8 x 8 pixels to a latent cell, with weights from the global generator."""
    channels = (8, 16, 16, 16)
    return AutoencoderKL(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        mid_block_add_attention=False,
        sample_size=512,
    )


def byte_tokenizer() -> CLIPTokenizer:
    """Make a CLIP tokenizer of 77 tokens that has a token per byte and no merges."""
    letters = _byte_letters()
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: index for index, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


def _byte_letters() -> list[str]:
    """List the 256 letters that byte-level BPE writes bytes as (GPT-2's `bytes_to_unicode`)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + n) for n in range(len(hidden))]


def random_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Make a text encoder of four layers for a tokenizer, weights from the global generator."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=_TEXT_WIDTH,
            intermediate_size=2 * _TEXT_WIDTH,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=tokenizer.model_max_length,
            projection_dim=_TEXT_WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def random_safety_checker() -> StableDiffusionSafetyChecker:
    """Make a safety checker; its untrained thresholds flag nothing."""
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 224,
        "patch_size": 32,
    }
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    return StableDiffusionSafetyChecker(
        CLIPConfig(vision_config=vision, text_config=text, projection_dim=16)
    )
