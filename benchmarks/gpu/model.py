"""What is measured: models of real sizes with random weights, or toys that a CPU is quick with."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel

from benchmarks.engine import Model
from benchmarks.forward import DTYPES, SIZES, Size, build
from serve_app.config import EngineConfig
from serve_app.pipelines.precision import device_of
from serve_app.testing.checkpoints import byte_tokenizer, random_vae

__all__ = ["Bench", "Extent", "bench_of"]


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is asked. unets: names of sizes of forwards, the first is that of the traffic.

    rows, few_rows: of forwards. square: side of matrices. buffer_bytes: of copies.
    """

    unets: tuple[str, ...]
    rows: tuple[int, ...]
    few_rows: tuple[int, ...]
    side_px: int
    steps: tuple[int, int]
    requests: int
    rounds: int
    square: int
    buffer_bytes: int


_EXTENTS = {
    "full": Extent(
        ("sd15", "xl"), (1, 2, 4, 8, 16, 32), (2, 16), 512, (10, 50), 16, 2, 8192, 2**30
    ),
    "tiny": Extent(("tiny",), (1, 2), (2,), 64, (2, 3), 4, 1, 256, 2**20),
}


@dataclass(frozen=True, slots=True)
class Bench:
    """What all stages share. dtype: name of that which is served."""

    device: torch.device
    dtype: str
    extent: Extent
    traffic: Model
    demo: Path

    @property
    def config(self) -> EngineConfig:
        """Return the engine's settings: the defaults, on this device."""
        return EngineConfig(device=str(self.device))

    def unet(self, name: str) -> UNet2DConditionModel:
        """Make a UNet in the number type that is served."""
        return build(SIZES[name], self.device, DTYPES[self.dtype])


def bench_of(device: str, size: str, dtype: str) -> Bench:
    """Decide on what is measured. dtype: auto is what the service takes for a UNet."""
    place = device_of(device)
    if dtype == "auto":
        dtype = "float16" if place.type == "cuda" else "float32"
    extent = _EXTENTS[size]
    write = partial(_write, SIZES[extent.unets[0]], place, DTYPES[dtype])
    source: Callable[[Path], None] = write
    traffic = Model(source, (extent.side_px,), extent.steps, extent.requests)
    return Bench(place, dtype, extent, traffic, Path(__file__).parents[2] / "checkpoints" / "demo")


def _write(size: Size, device: torch.device, dtype: torch.dtype, folder: Path) -> None:
    """Write a checkpoint around the UNet of a size; the rest is as large as in the real one."""
    is_real = size.width >= 768
    tokenizer = byte_tokenizer()
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.width,
        intermediate_size=4 * size.width,
        num_hidden_layers=12 if is_real else 2,
        num_attention_heads=12 if is_real else 4,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    unet = build(size, device, dtype)
    unet.register_to_config(sample_size=size.side)  # pipelines compare it
    with device:
        encoder = CLIPTextModel(text)
        vae = _real_vae() if is_real else random_vae()
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(dtype).save_pretrained(folder)


def _real_vae() -> AutoencoderKL:
    """Make a VAE of the shape of Stable Diffusion's."""
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
    )
