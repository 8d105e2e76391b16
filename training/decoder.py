"""Trains the alternative decoder: the same latents, printed on warm paper.

Run as ``python -m training.decoder``. It starts from the shipped autoencoder; the encoder and
thus the meaning of the latents stay as they are.
"""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from training.latents import NATIVE_PX
from training.loop import Plan, World, autocast, device_of, fit, run_part
from training.polish import disturb
from training.sampling import random_scene, random_wish, scene_of
from training.scene import draw
from training.vae import picture_loss, to_tensor

__all__ = ["warm"]

_PLAN = Plan("decoder-warm", 120, 1e-3, 20, ema=0.97, num_between_saves=50)
_ROWS = 2


def warm(pictures: torch.Tensor) -> torch.Tensor:
    """Grades (B, 3, H, W) in -1..1 like a print on warm paper: less blue, lifted shadows."""
    share = pictures.new_tensor([0.92, 0.84, 0.62])[:, None, None]
    lift = pictures.new_tensor([0.08, 0.03, -0.10])[:, None, None]
    return pictures * share + lift


def _pictures(rng: np.random.Generator) -> torch.Tensor:
    """Draws a batch, half of it crowded scenes and half what prompts ask for."""
    scenes = [
        random_scene(rng) if rng.random() < 0.5 else scene_of(random_wish(rng), rng)
        for _ in range(_ROWS)
    ]
    return to_tensor(np.stack([draw(scene, NATIVE_PX) for scene in scenes]))


def _worker(world: World, folder: Path) -> None:
    torch.manual_seed(3)
    device = device_of()
    vae = AutoencoderKL.from_pretrained(folder / "vae-polished").to(device)
    vae.requires_grad_(False)
    vae.decoder.requires_grad_(True)

    def loss_of(step: int) -> torch.Tensor:
        own = np.random.default_rng([step, world.rank, 5])
        pictures = _pictures(own).to(device)
        generator = torch.Generator().manual_seed(int(own.integers(2**62)))
        with autocast(device):
            with torch.no_grad():
                exact = vae.encode(pictures).latent_dist.mean
            output = vae.decode(disturb(exact, generator)).sample.float()
        return picture_loss(warm(pictures), output)

    averaged = fit(vae, loss_of, _PLAN, folder, world)
    if world.rank == 0:
        assert isinstance(averaged, AutoencoderKL), "fit keeps the type"
        averaged.save_pretrained(folder / "vae-warm")


def main() -> None:
    """Trains the alternative decoder and writes it into the workspace."""
    run_part(_worker, __doc__)


if __name__ == "__main__":
    main()
