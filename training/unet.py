"""Trains the two denoisers with their text encoder.

Run as ``python -m training.unet``. The inpainting UNet (9 channels) comes first, at 256 px, and
then learns 512 px beside it, since that is what clients ask for. The 4-channel UNet is the same
network with the mask channels folded into a bias, as for a mask that covers all, and then trained
on; it shares the text encoder. ``--steps`` and ``--pool`` are those of the inpainting UNet at 256
px; ``--text-from FOLDER`` starts with a text encoder that is trained already.
"""

import argparse
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel

from training.diffusion import Example, build_scheduler, denoising_loss
from training.latents import NATIVE_PX, LatentPool, PoolSpec
from training.loop import Plan, World, device_of, fit, launch
from training.mask import Task, random_task
from training.paths import Workspace, add_arguments
from training.sampling import Wish, random_wish, scene_of
from training.text import Tokens, build_encoder, build_tokenizer, encode

__all__ = ["build_unet", "fold_mask", "plain_task"]

_CLIP_SKIP_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of training; ``pool`` is the number of encoded tasks of all processes.

    ``has_text`` says whether the text encoder learns too. With several ``sides_px`` the steps
    take turns; rows and tasks are those at the native size and fewer at a larger one, so every
    step costs the same.
    """

    plan: Plan
    pool: int
    has_text: bool = True
    sides_px: tuple[int, ...] = (NATIVE_PX,)


_ROWS = 64
_INPAINT = Stage(Plan("unet-inpaint", 5100, 7e-4, 150, 0.997, flat_share=0.8), 7200)
_LARGE = Stage(
    Plan("unet-inpaint-large", 2000, 5e-4, 50, 0.995, flat_share=0.4),
    pool=6000,
    has_text=False,
    sides_px=(256, 512),
)
_PLAIN = Stage(
    Plan("unet-plain", 900, 4e-4, 50, 0.99, flat_share=0.4),
    pool=4000,
    has_text=False,
    sides_px=(256, 512),
)


def build_unet(in_channels: int) -> UNet2DConditionModel:
    """Makes an untrained denoiser for 16 x 16 latents; attention at 4 x 4.

    The pooled text also joins the time embedding, which stock pipelines support.
    """
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=in_channels,
        out_channels=4,
        block_out_channels=(48, 96, 96),
        down_block_types=("DownBlock2D",) * 2 + ("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",) + ("UpBlock2D",) * 2,
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
    vae = AutoencoderKL.from_pretrained(folder / "vae").to(device).eval()
    kind = "plain" if pair.unet.config.in_channels == 4 else "inpaint"
    torch.manual_seed(world.rank)
    pools = {}
    for side_px in sorted(set(stage.sides_px)):
        path = folder / f"pool-{stage.plan.name}-{side_px}-{world.rank}.pt"
        seed = [world.rank, side_px, *stage.plan.name.encode()]
        count = stage.pool // world.size // (side_px // NATIVE_PX) ** 2
        spec = PoolSpec(count, seed, side_px)
        pools[side_px] = LatentPool.make(path, vae, make_task, spec)
    pair = pair.to(device).train()
    pair.unet.to(memory_format=torch.channels_last)  # a tenth faster on a CPU
    pair.text.requires_grad_(stage.has_text)
    scheduler, tokens = build_scheduler(), Tokens(build_tokenizer())

    def loss_of(step: int) -> torch.Tensor:
        own = np.random.default_rng([step, world.rank])
        side_px = stage.sides_px[step % len(stage.sides_px)]
        ratio = side_px // NATIVE_PX
        rows = pools[side_px].batch(max(_ROWS // world.size // ratio**2, 1), own)
        generator = torch.Generator().manual_seed(int(own.integers(2**62)))
        skipped = torch.rand(len(rows.captions), generator=generator) < _CLIP_SKIP_SHARE
        text = encode(pair.text, tokens.rows(rows.captions).to(device), skipped.to(device))
        context = rows.context if kind == "inpaint" else None
        example = Example(rows.latents, context, text, rows.weights)
        return denoising_loss(pair.unet, scheduler, example, generator)

    averaged = fit(pair, loss_of, stage.plan, folder, world)
    assert isinstance(averaged, _Pair), "fit keeps the type"
    averaged.unet.to(memory_format=torch.contiguous_format)
    return averaged


def _train_inpaint(stage: Stage, text_from: Path | None, world: World, folder: Path) -> None:
    torch.manual_seed(0)
    if text_from is None:
        text = build_encoder(build_tokenizer())
    else:
        text = CLIPTextModel.from_pretrained(text_from, dtype=torch.float32)
    pair = _train(stage, _Pair(build_unet(9), text), random_task, folder, world)
    if world.rank == 0:
        pair.unet.save_pretrained(folder / "unet-inpaint-native")
        pair.text.save_pretrained(folder / "text_encoder")


def _train_large(world: World, folder: Path) -> None:
    unet = UNet2DConditionModel.from_pretrained(folder / "unet-inpaint-native")
    text = CLIPTextModel.from_pretrained(folder / "text_encoder")
    pair = _train(_LARGE, _Pair(unet, text), random_task, folder, world)
    if world.rank == 0:
        pair.unet.save_pretrained(folder / "unet-inpaint")


def _train_plain(world: World, folder: Path) -> None:
    unet = UNet2DConditionModel.from_pretrained(folder / "unet-inpaint")
    text = CLIPTextModel.from_pretrained(folder / "text_encoder")
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    with torch.no_grad():
        grey = vae.encode(torch.zeros(1, 3, NATIVE_PX, NATIVE_PX)).latent_dist.mean[0].mean((1, 2))
    pair = _train(_PLAIN, _Pair(fold_mask(unet, grey), text), plain_task, folder, world)
    if world.rank == 0:
        pair.unet.save_pretrained(folder / "unet-plain")


_PARTS = ("inpaint", "large", "plain")


def main() -> None:
    """Trains the asked UNets, the inpainting one first."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--parts", nargs="+", choices=_PARTS, default=_PARTS)
    parser.add_argument("--steps", type=int, default=_INPAINT.plan.num_steps)
    parser.add_argument("--pool", type=int, default=_INPAINT.pool)
    parser.add_argument("--text-from", type=Path, help="text encoder to go on from")
    arguments = parser.parse_args()
    options = Workspace.from_arguments(arguments)
    plan = dataclasses.replace(_INPAINT.plan, num_steps=arguments.steps)
    stage = dataclasses.replace(_INPAINT, plan=plan, pool=arguments.pool)
    if "inpaint" in arguments.parts:
        worker = partial(_train_inpaint, stage, arguments.text_from)
        launch(worker, options.work, options.num_processes)
    if "large" in arguments.parts:
        launch(_train_large, options.work, options.num_processes)
    if "plain" in arguments.parts:
        launch(_train_plain, options.work, options.num_processes)


if __name__ == "__main__":
    main()
