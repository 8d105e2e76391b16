"""Trains the autoencoder: 8 x smaller, 4 latent channels of unit variance.

Run as ``python -m training.vae``. Crops of 64 px first, then of 128 px, then whole pictures of
256 px. At the end mean and variance of each latent channel are folded into the 1 x 1
convolutions around the latent, so ``scaling_factor`` is 1 and no shift is needed (the stock
inpainting pipeline ignores a shift).
"""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn import functional as F

from training.loop import Plan, World, autocast, device_of, fit, run_part
from training.paths import budget
from training.sampling import random_scene
from training.scene import draw

__all__ = ["EDGE_WEIGHT", "build", "fold_statistics", "picture_loss", "picture_pool", "to_tensor"]

_STAGES = ((0.6, 64, 8), (0.88, 128, 3), (1.0, 256, 1))
_POOL = 1500
_GREY = 127.5
# For decoders that learn sharp edges.
EDGE_WEIGHT = 3.0


def build(num_levels: int = 4) -> AutoencoderKL:
    """Makes an untrained autoencoder; four levels divide the sides by 8, five by 16."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * num_levels,
        up_block_types=("UpDecoderBlock2D",) * num_levels,
        block_out_channels=(*(16,) * (num_levels - 2), 32, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=2 ** (num_levels + 3),
        scaling_factor=1.0,
    )


def to_tensor(pictures: np.ndarray) -> torch.Tensor:
    """Turns (B, H, W, 3) uint8 into (B, 3, H, W) float in -1..1."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous().float().div_(_GREY).sub_(1)


def picture_pool(seed: int, size_px: int, count: int) -> np.ndarray:
    """Draws that many scenes: (count, size_px, size_px, 3), uint8."""
    rng = np.random.default_rng(seed)
    return np.stack([draw(random_scene(rng), size_px) for _ in range(count)])


def _crops(
    pools: dict[int, np.ndarray], size_px: int, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Cuts random squares, flips them, permutes channels and greys a box in 30 %."""
    fitting = [pool for side, pool in pools.items() if side >= size_px]
    pool = fitting[rng.integers(len(fitting))]
    out = np.empty((count, size_px, size_px, 3), np.uint8)
    for row in range(count):
        y, x = rng.integers(0, pool.shape[1] - size_px + 1, 2)
        crop = pool[rng.integers(len(pool)), y : y + size_px, x : x + size_px]
        crop = crop[:, :: rng.choice([-1, 1])]
        if rng.random() < 0.3:
            crop = crop[..., rng.permutation(3)]
        out[row] = crop
        if rng.random() < 0.3:
            top, left = rng.integers(-size_px // 2, size_px, 2)
            side = rng.integers(size_px // 4, size_px)
            out[row, max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = 127
    return out


def picture_loss(
    target: torch.Tensor, output: torch.Tensor, edge_weight: float = 0.0
) -> torch.Tensor:
    """L1 + L1 of the gradients + L1 of 8 x 8 means; (B, 3, H, W) in -1..1.

    ``edge_weight`` is how much more a pixel counts within 3 px of an edge of the target: thin
    tips make a shape but are few pixels.
    """
    error = output - target
    if edge_weight:
        error = error * (1 + edge_weight * _edges(target))
    slope = (error[..., 1:] - error[..., :-1]).abs().mean()
    slope = slope + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    return error.abs().mean() + 0.5 * slope + 0.5 * F.avg_pool2d(error, 8).abs().mean()


def _edges(target: torch.Tensor) -> torch.Tensor:
    """Marks the pixels (B, 1, H, W) within 3 px of a step of more than 25 grey levels."""
    low, high = -F.max_pool2d(-target, 3, 1, 1), F.max_pool2d(target, 3, 1, 1)
    steps = ((high - low).amax(1, keepdim=True) > 25 / _GREY).float()
    return F.max_pool2d(steps, 5, 1, 2)


@torch.no_grad()
def fold_statistics(vae: AutoencoderKL, pictures: torch.Tensor) -> None:
    """Makes every latent channel zero mean and unit variance on ``pictures``, exactly."""
    latent = torch.cat([vae.encode(batch).latent_dist.mean for batch in torch.split(pictures, 16)])
    mean, deviation = latent.mean((0, 2, 3)), latent.std((0, 2, 3))
    channels = len(mean)
    quant, post = vae.quant_conv, vae.post_quant_conv
    post.bias += post.weight[:, :, 0, 0] @ mean
    post.weight *= deviation[None, :, None, None]
    quant.weight[:channels] /= deviation[:, None, None, None]
    quant.bias[:channels] = (quant.bias[:channels] - mean) / deviation
    quant.bias[channels:] -= 2 * deviation.log()


def _worker(world: World, folder: Path) -> None:
    torch.manual_seed(0)
    device = device_of()
    vae = build().to(device)
    plan = Plan("vae", _NUM_STEPS, 2.5e-3, ema=0.997)
    pools = {
        side: picture_pool(1000 * world.rank + side, side, budget(_POOL)) for side in (128, 256)
    }

    def loss_of(step: int) -> torch.Tensor:
        done = step / plan.num_steps
        size_px, count = next((px, rows) for end, px, rows in _STAGES if done < end)
        rng = np.random.default_rng([step, world.rank])
        target = to_tensor(_crops(pools, size_px, count, rng)).to(device)
        with autocast(device):
            posterior = vae.encode(target).latent_dist
            output = vae.decode(posterior.sample()).sample
        return picture_loss(target, output.float()) + 4e-4 * _kl(posterior.mean, posterior.logvar)

    averaged = fit(vae, loss_of, plan, folder, world)
    if world.rank == 0:
        assert isinstance(averaged, AutoencoderKL)
        whole = to_tensor(np.concatenate([picture_pool(7, 256, 96), picture_pool(8, 256, 96)]))
        fold_statistics(averaged, whole.to(device))
        averaged.save_pretrained(folder / "vae-small")


def _kl(mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    """Mean divergence from the unit normal per latent value."""
    mean, logvar = mean.float(), logvar.float()
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()


_NUM_STEPS = 6000


def main() -> None:
    """Trains the autoencoder and writes it into the workspace."""
    run_part(_worker, __doc__)


if __name__ == "__main__":
    main()
