"""Previews of each family against the pictures that its own VAE decodes of the same latents.

Of 4 channels, of 16, and of 16 that Flux packs.
"""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, FluxPipeline
from torch.nn import functional

from serve_app.config import EngineConfig
from serve_app.models import ModelEntry
from serve_app.pipelines.estimate import Estimate
from serve_app.pipelines.loader import load_checkpoint
from serve_app.pipelines.painter import WeavePainter
from serve_app.types import Kind
from tests.engine.linear_vaes import make_linear
from tests.engine.test_families import make_flux, make_sd3, make_xl

HEIGHT, WIDTH = 48, 96  # not square: what is packed by rows must not come back by columns
FAMILIES = {"xl": make_xl, "sd3": make_sd3, "flux": lambda: make_flux(latent_channels=16)}


@pytest.fixture(scope="module", params=list(FAMILIES))
def painter(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WeavePainter]:
    """A random model with a VAE that computes something."""
    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp(request.param)
    pipeline = FAMILIES[request.param]()
    make_linear(pipeline.vae)
    pipeline.save_pretrained(folder)
    config = EngineConfig(device="cpu", measure_rows=False, preview_every_steps=1)
    entry = ModelEntry(id="random", source=folder, kinds=tuple(Kind), native_size_px=64)
    painter = WeavePainter(entry, config, load_checkpoint(entry, config))
    yield painter
    painter.close()


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Of the pixels of two pictures."""
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def clean_latents(base: DiffusionPipeline, picture: torch.Tensor) -> torch.Tensor:
    """Encode a picture, -1 to 1, as the stock pipelines do it, packed where they pack."""
    config = base.vae.config
    latents = base.vae.encode(picture).latent_dist.mode()
    latents = (latents - (config.get("shift_factor") or 0.0)) * config.scaling_factor
    if isinstance(base, FluxPipeline):
        latents = FluxPipeline._pack_latents(latents, *latents.shape)
    return latents


def stock_decoded(base: DiffusionPipeline, latents: torch.Tensor) -> np.ndarray:
    """Decode as the stock pipelines do it; one pixel for each latent cell, RGB bytes."""
    config = base.vae.config
    if isinstance(base, FluxPipeline):
        latents = FluxPipeline._unpack_latents(latents, HEIGHT, WIDTH, base.vae_scale_factor)
    made = base.vae.decode(
        latents / config.scaling_factor + (config.get("shift_factor") or 0.0)
    ).sample
    cells = functional.avg_pool2d(made, base.vae_scale_factor)[0].permute(1, 2, 0)
    return (cells / 2 + 0.5).clamp(0, 1).mul(255).numpy()


@torch.inference_mode()
def test_preview_of_clean_latents_is_what_the_vae_decodes(painter: WeavePainter) -> None:
    base = painter._checkpoint.base
    fields = torch.rand(1, 3, 3, 4, generator=torch.Generator().manual_seed(9))
    picture = 2 * functional.interpolate(fields, (HEIGHT, WIDTH), mode="bilinear") - 1
    latents = clean_latents(base, picture)
    scheduler = type(base.scheduler).from_config(base.scheduler.config)
    scheduler.set_timesteps(4)
    last = len(scheduler.sigmas) - 1  # where there is no noise left
    estimate = Estimate(scheduler, torch.zeros_like(latents), 0, latents, last)
    shown = np.asarray(painter._previews._paint(estimate, (HEIGHT, WIDTH)), float)
    decoded = stock_decoded(base, latents)
    assert shown.shape == decoded.shape == (HEIGHT // 2, WIDTH // 2, 3)
    assert correlation(shown, decoded) > 0.99
    assert np.abs(shown - decoded).mean() < 2
