"""Turns the autoencoder for 128 px into one for 256 px with the same latents.

Run as ``python -m training.enlarge``. One more level goes around the network: it starts as a
2 x 2 mean before the encoder and as a doubling of pixels after the decoder, and is then trained
on pictures of 256 px, with the small encoder as teacher of the latents. Then the decoder alone
learns sharp edges, which leaves the latents as they are. So 256 px have 16 x 16 latents, and the
denoisers stay as fast as at 128 px.
"""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import nn
from torch.nn import functional as F

from training.latents import NATIVE_PX
from training.loop import Plan, World, autocast, device_of, fit, run_part
from training.mask import random_task
from training.sampling import random_scene
from training.scene import draw
from training.vae import EDGE_WEIGHT, build, picture_loss, to_tensor

__all__ = ["enlarged", "sharpen"]

_PLAN = Plan("enlarge", 240, 1.5e-3, 30, ema=0.98, num_between_saves=50)
_SHARPEN = Plan(
    "enlarge-decoder", 3400, 1.2e-3, 50, ema=0.995, flat_share=0.8, num_between_saves=50
)
_CROP_PX = 128
_ROWS = 2


@torch.no_grad()
def enlarged(small: AutoencoderKL) -> AutoencoderKL:
    """Makes the larger autoencoder, which starts as the small one on halved pictures."""
    large = build(num_levels=5)
    ours, theirs = large.encoder, small.encoder
    ours.conv_in.load_state_dict(theirs.conv_in.state_dict())
    ours.conv_out.load_state_dict(theirs.conv_out.state_dict())
    ours.conv_norm_out.load_state_dict(theirs.conv_norm_out.state_dict())
    ours.mid_block.load_state_dict(theirs.mid_block.state_dict())
    ours.down_blocks[1:].load_state_dict(theirs.down_blocks.state_dict())
    _quiet(ours.down_blocks[0].resnets)
    _delta(ours.down_blocks[0].downsamplers[0].conv, ((0, 0), (0, 1), (1, 0), (1, 1)))
    ours, theirs = large.decoder, small.decoder
    for part in ("conv_in", "mid_block", "conv_norm_out", "conv_out"):
        ours.get_submodule(part).load_state_dict(theirs.get_submodule(part).state_dict())
    ours.up_blocks[:-1].load_state_dict(theirs.up_blocks.state_dict(), strict=False)
    _delta(ours.up_blocks[-2].upsamplers[0].conv, ((1, 1),))
    _quiet(ours.up_blocks[-1].resnets)
    large.quant_conv.load_state_dict(small.quant_conv.state_dict())
    large.post_quant_conv.load_state_dict(small.post_quant_conv.state_dict())
    return large


def _quiet(resnets: nn.Module) -> None:
    """Makes residual blocks start as the identity."""
    for block in resnets.children():
        nn.init.zeros_(block.get_submodule("conv2").get_parameter("weight"))
        nn.init.zeros_(block.get_submodule("conv2").get_parameter("bias"))


def _delta(conv: nn.Conv2d, taps: tuple[tuple[int, int], ...]) -> None:
    """Makes a convolution start as the mean of some taps, channel by channel."""
    assert conv.bias is not None, "these convolutions have a bias"
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    channels = torch.arange(conv.in_channels)
    for row, column in taps:
        conv.weight[channels, channels, row, column] = 1 / len(taps)


def _pictures(rng: np.random.Generator) -> torch.Tensor:
    """Draws whole pictures, or as many pixels in quarters cut from more of them."""
    whole = rng.random() < 0.5
    out = []
    for _ in range(_ROWS if whole else 4 * _ROWS):
        is_any = rng.random() < 0.25
        scene = random_scene(rng) if is_any else random_task(rng, NATIVE_PX).scene
        picture = draw(scene, NATIVE_PX)
        if rng.random() < 0.1:
            top, left, side = rng.integers(0, NATIVE_PX // 2, 3)
            picture[top : top + side + 64, left : left + side + 64] = 127
        if not whole:
            top, left = rng.integers(0, NATIVE_PX - _CROP_PX + 1, 2)
            picture = picture[top : top + _CROP_PX, left : left + _CROP_PX]
        out.append(picture)
    return to_tensor(np.stack(out))


def _worker(world: World, folder: Path) -> None:
    torch.manual_seed(4)
    device = device_of()
    teacher = AutoencoderKL.from_pretrained(folder / "vae-small").to(device)
    vae = enlarged(teacher).to(device)

    def loss_of(step: int) -> torch.Tensor:
        pictures = _pictures(np.random.default_rng([step, world.rank, 6])).to(device)
        with autocast(device):
            with torch.no_grad():
                target = teacher.encode(F.avg_pool2d(pictures, 2)).latent_dist.mean
            posterior = vae.encode(pictures).latent_dist
            output = vae.decode(posterior.sample()).sample
        apart: torch.Tensor = (posterior.mean.float() - target.float()).abs().mean()
        return picture_loss(pictures, output.float()) + 0.5 * apart

    averaged = fit(vae, loss_of, _PLAN, folder, world)
    assert isinstance(averaged, AutoencoderKL), "fit keeps the type"
    sharpen(averaged, folder, world)


def sharpen(vae: AutoencoderKL, folder: Path, world: World) -> None:
    """Trains the decoder on fixed latents and writes the autoencoder into the workspace."""
    vae.requires_grad_(False)
    vae.decoder.requires_grad_(True)

    def loss_of(step: int) -> torch.Tensor:
        pictures = _pictures(np.random.default_rng([step, world.rank, 8])).to(vae.device)
        with autocast(vae.device):
            latents = vae.encode(pictures).latent_dist.sample()
            output = vae.decode(latents).sample
        return picture_loss(pictures, output.float(), EDGE_WEIGHT)

    averaged = fit(vae, loss_of, _SHARPEN, folder, world)
    if world.rank == 0:
        assert isinstance(averaged, AutoencoderKL), "fit keeps the type"
        averaged.save_pretrained(folder / "vae")


def main() -> None:
    """Trains the larger autoencoder and writes it into the workspace."""
    run_part(_worker, __doc__)


if __name__ == "__main__":
    main()
