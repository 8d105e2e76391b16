"""What LoRA and textual inversion share: a loss that alternates between the two denoisers.

An adapter trained on both works on either checkpoint. All weights are frozen here; the caller
opens its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from training.diffusion import Example, build_scheduler, denoising_loss
from training.latents import LatentPool, PoolSpec
from training.loop import World, device_of
from training.mask import Task
from training.text import Tokens, encode

__all__ = ["Lesson", "Models", "make_loss"]

_ROWS = 16


class Models(nn.Module):
    """Both denoisers and their text encoder, frozen."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.inpaint = UNet2DConditionModel.from_pretrained(folder / "unet-inpaint")
        self.plain = UNet2DConditionModel.from_pretrained(folder / "unet-plain")
        self.text = CLIPTextModel.from_pretrained(folder / "text_encoder")
        self.requires_grad_(False)
        self.to(device_of()).train()


@dataclass(frozen=True, slots=True)
class Lesson:
    """What an adapter learns from: ``makers`` draws tasks for "inpaint" and "plain".

    ``reword`` changes every caption; ``num_tasks`` of each kind are encoded per process.
    """

    name: str
    makers: Mapping[str, Callable[[np.random.Generator, int], Task]]
    reword: Callable[[str], str] = str
    num_tasks: int = 200


def make_loss(
    models: Models, tokenizer: CLIPTokenizer, lesson: Lesson, folder: Path, world: World
) -> Callable[[int], torch.Tensor]:
    """Gives the loss of a step; even steps use the inpainting UNet, odd ones the other."""
    device = device_of()
    vae = AutoencoderKL.from_pretrained(folder / "vae").to(device).eval()
    scheduler, tokens = build_scheduler(), Tokens(tokenizer)
    pools = {}
    for number, (name, maker) in enumerate(lesson.makers.items()):
        path = folder / f"pool-{lesson.name}-{name}-{world.rank}.pt"
        spec = PoolSpec(lesson.num_tasks, [17, world.rank, number])
        pools[name] = LatentPool.make(path, vae, maker, spec)

    def loss_of(step: int) -> torch.Tensor:
        own = np.random.default_rng([step, world.rank])
        name = ("inpaint", "plain")[step % 2]
        rows = pools[name].batch(_ROWS, own)
        generator = torch.Generator().manual_seed(int(own.integers(2**62)))
        ids = tokens.rows([lesson.reword(caption) for caption in rows.captions]).to(device)
        text = encode(models.text, ids, torch.zeros(len(ids), dtype=torch.bool).to(device))
        context = rows.context if name == "inpaint" else None
        unet = models.inpaint if name == "inpaint" else models.plain
        example = Example(rows.latents, context, text, rows.weights)
        return denoising_loss(unet, scheduler, example, generator)

    return loss_of
