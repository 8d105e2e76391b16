"""Trains the two denoisers with their text encoder.

Run as ``python -m training.unet``. Latents come from the small autoencoder, so 16 x 16 of them
(256 px in the shipped checkpoint) are drawn and encoded at 128 px. The inpainting UNet (9
channels) comes first. The 4-channel UNet is the same network with the mask channels folded into
a bias, as for a mask that covers all, and then trained on; it shares the text encoder.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel

from training.diffusion import Example, build_scheduler, denoising_loss
from training.latents import LatentPool
from training.loop import Plan, World, device_of, fit, launch
from training.mask import Task, random_task
from training.paths import Workspace, add_arguments
from training.sampling import Wish, random_wish, scene_of
from training.text import Tokens, build_encoder, build_tokenizer, encode

__all__ = ["build_unet", "fold_mask", "plain_task"]

_CLIP_SKIP_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of training; ``pool`` is the number of encoded tasks kept per process.

    ``outside`` is the weight of the loss on what the mask does not cover; ``has_text`` says
    whether the text encoder learns too.
    """

    name: str
    num_steps: int
    learning_rate: float
    pool: int
    num_warmup: int = 100
    final_factor: float = 0.02
    outside: float = 0.25
    has_text: bool = True


_SIDE_PX = 128
_ROWS = 32
_FIRST = Stage("unet-first", 1500, 1.2e-3, 2500, 100, 0.35)
_SECOND = Stage("unet-second", 2000, 1e-3, 1200, 50)
_THIRD = Stage("unet-third", 300, 6e-4, 400, 10, outside=1.0, has_text=False)
_PLAIN = Stage("unet-plain", 300, 4e-4, 800, 30, has_text=False)


def build_unet(in_channels: int) -> UNet2DConditionModel:
    """Makes an untrained denoiser for 16 x 16 latents; attention at 2 x 2.

    The pooled text also joins the time embedding, which stock pipelines support.
    """
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=in_channels,
        out_channels=4,
        block_out_channels=(32, 64, 112, 112),
        down_block_types=("DownBlock2D",) * 3 + ("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",) + ("UpBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=64,
        attention_head_dim=4,
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
        resnet_time_scale_shift="scale_shift",
    )


def plain_task(rng: np.random.Generator, size_px: int, wish: Wish | None = None) -> Task:
    """Draws a task for the 4-channel UNet: the whole frame, one object or none."""
    wish = wish or random_wish(rng)
    return Task(scene_of(wish, rng), np.ones((size_px, size_px), bool), wish, True)


@torch.no_grad()
def fold_mask(unet: UNet2DConditionModel, grey: torch.Tensor) -> UNet2DConditionModel:
    """Cuts a 9-channel UNet to 4 channels, as if the mask always covered the frame.

    grey: (4,), the latent of a wholly masked picture; with a mask of ones it is a constant
    input, hence a bias.
    """
    plain = build_unet(4)
    weights = unet.state_dict()
    kernel = weights["conv_in.weight"]
    constant = torch.cat([torch.ones(1), grey.cpu()]).to(kernel)
    weights["conv_in.bias"] = weights["conv_in.bias"] + kernel[:, 4:].sum((2, 3)) @ constant
    weights["conv_in.weight"] = kernel[:, :4]
    plain.load_state_dict(weights)
    return plain


class _Pair(nn.Module):
    """A denoiser and its text encoder, trained together."""

    def __init__(self, unet: UNet2DConditionModel, text: CLIPTextModel) -> None:
        super().__init__()
        self.unet = unet
        self.text = text


def _train(
    stage: Stage,
    pair: _Pair,
    make_task: Callable[[np.random.Generator, int], Task],
    folder: Path,
    world: World,
) -> _Pair:
    """Trains ``pair`` in place for one stage and gives back a copy with averaged weights."""
    device = device_of()
    torch.manual_seed(world.rank)
    vae = AutoencoderKL.from_pretrained(folder / "vae-small").to(device).eval()
    pair = pair.to(device).train()
    pair.text.requires_grad_(stage.has_text)
    scheduler, tokens = build_scheduler(), Tokens(build_tokenizer())
    rng = np.random.default_rng([world.rank, stage.num_steps])
    pool = LatentPool(vae, make_task, _SIDE_PX, rng)

    def loss_of(step: int) -> torch.Tensor:
        own = np.random.default_rng([step, world.rank])
        if step % 50 == 49:
            pool.refill(_ROWS)
        pool.grow_to(stage.pool)
        rows = pool.batch(_ROWS, own, stage.outside)
        generator = torch.Generator().manual_seed(int(own.integers(2**62)))
        skipped = torch.rand(len(rows.captions), generator=generator) < _CLIP_SKIP_SHARE
        text = encode(pair.text, tokens.rows(rows.captions).to(device), skipped.to(device))
        context = rows.context if pair.unet.config.in_channels == 9 else None
        return denoising_loss(
            pair.unet, scheduler, Example(rows.latents, context, text, rows.weights), generator
        )

    plan = Plan(
        stage.name,
        stage.num_steps,
        stage.learning_rate,
        stage.num_warmup,
        ema=0.997 if stage.num_steps > 1000 else 0.95,
        final_factor=stage.final_factor,
    )
    averaged = fit(pair, loss_of, plan, folder, world)
    assert isinstance(averaged, _Pair), "fit keeps the type"
    return averaged


def _train_inpaint(world: World, folder: Path) -> None:
    torch.manual_seed(0)
    pair = _Pair(build_unet(9), build_encoder(build_tokenizer()))
    _train(_FIRST, pair, random_task, folder, world)
    steady = _train(_SECOND, pair, random_task, folder, world)
    steady = _train(_THIRD, steady, random_task, folder, world)
    if world.rank == 0:
        steady.unet.save_pretrained(folder / "unet-inpaint")
        steady.text.save_pretrained(folder / "text_encoder")


def _train_plain(world: World, folder: Path) -> None:
    unet = UNet2DConditionModel.from_pretrained(folder / "unet-inpaint")
    text = CLIPTextModel.from_pretrained(folder / "text_encoder")
    vae = AutoencoderKL.from_pretrained(folder / "vae-small")
    with torch.no_grad():
        grey = vae.encode(torch.zeros(1, 3, 128, 128)).latent_dist.mean[0].mean((1, 2))
    pair = _train(_PLAIN, _Pair(fold_mask(unet, grey), text), plain_task, folder, world)
    if world.rank == 0:
        pair.unet.save_pretrained(folder / "unet-plain")


_PARTS = {"inpaint": _train_inpaint, "plain": _train_plain}


def main() -> None:
    """Trains the asked UNets, the inpainting one first."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--parts", nargs="+", choices=tuple(_PARTS), default=tuple(_PARTS))
    arguments = parser.parse_args()
    options = Workspace.from_arguments(arguments)
    for part in arguments.parts:
        launch(_PARTS[part], options.work, options.num_processes)


if __name__ == "__main__":
    main()
