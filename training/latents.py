"""A pool of encoded tasks, so that the autoencoder runs far less often than the UNet.

Every task is drawn and encoded once and trained on several times, each time with other noise
and other words.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn import functional as F
from tqdm import tqdm

from training.caption import caption_of
from training.loop import autocast
from training.mask import Task
from training.paths import budget
from training.sampling import Wish
from training.scene import draw
from training.vae import to_tensor

__all__ = ["NATIVE_PX", "Batch", "LatentPool", "PoolSpec", "TaskMaker", "encode_tasks"]

TaskMaker = Callable[[np.random.Generator, int], Task]
NATIVE_PX = 256


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """How many tasks a pool has, at which size, and what their randomness starts from."""

    count: int
    seed: list[int]
    side_px: int = NATIVE_PX


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows for one step: latents (B, 4, h, w), context (B, 5, h, w), weights (B, 1, h, w).

    ``context`` is what the inpainting UNet gets beside the noisy latents: mask, masked latents.
    """

    latents: torch.Tensor
    context: torch.Tensor
    weights: torch.Tensor
    captions: list[str]


@torch.no_grad()
def encode_tasks(
    vae: AutoencoderKL, tasks: list[Task], size_px: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Encodes pictures and masked pictures as the stock inpainting pipeline does.

    Returns latents (B, 4, h, w) and context (B, 5, h, w), both float32.
    """
    device = vae.device
    pictures = to_tensor(np.stack([draw(task.scene, size_px) for task in tasks])).to(device)
    masks = torch.from_numpy(np.stack([task.mask for task in tasks]))[:, None].float().to(device)
    pictures = pictures.contiguous(memory_format=torch.channels_last)
    with autocast(device):
        clean = vae.encode(pictures).latent_dist.mean
        hidden = vae.encode(pictures * (1 - masks)).latent_dist.sample()
    small = F.interpolate(masks, clean.shape[-2:])
    return clean.float(), torch.cat([small, hidden.float()], 1)


class LatentPool:
    """A fixed number of encoded tasks, kept in a file so that a resumed run does not repeat it."""

    def __init__(
        self, latents: torch.Tensor, context: torch.Tensor, wishes: list[tuple[Wish, bool]]
    ) -> None:
        self._latents, self._context, self._wishes = latents, context, wishes

    @classmethod
    def make(
        cls, path: Path, vae: AutoencoderKL, make_task: TaskMaker, spec: PoolSpec
    ) -> "LatentPool":
        """Reads the pool from ``path``, or draws, encodes and writes its tasks."""
        if path.exists():
            latents, context, rows = torch.load(path, weights_only=True)
            return cls(latents, context, [(Wish(*words), is_full) for words, is_full in rows])
        count, side_px = budget(spec.count), spec.side_px
        rng, wishes, encoded = np.random.default_rng(spec.seed), [], []
        # One picture at a time stays in the cache of a CPU: three times faster than eight.
        num_rows = 1 if vae.device.type == "cpu" else 64
        vae = vae.to(memory_format=torch.channels_last)
        for _ in tqdm(range(0, count, num_rows), path.stem, mininterval=5):
            tasks = [make_task(rng, side_px) for _ in range(num_rows)]
            encoded.append(encode_tasks(vae, tasks, side_px))
            wishes += [(task.wish, task.is_full) for task in tasks]
        latents, context = (torch.cat(part) for part in zip(*encoded, strict=True))
        rows = [(dataclasses.astuple(wish), is_full) for wish, is_full in wishes]
        torch.save((latents, context, rows), path)
        return cls(latents, context, wishes)

    def batch(self, count: int, rng: np.random.Generator, outside: float = 0.25) -> Batch:
        """Draws rows with fresh captions; the part to repaint weighs 1, the rest ``outside``."""
        rows = rng.integers(len(self._wishes), size=count)
        context = self._context[rows]
        captions = []
        for row in rows:
            wish, is_full = self._wishes[row]
            captions.append(caption_of(wish, rng, 0.75 if is_full else 0.5))
        touched = F.max_pool2d(context[:, :1], 3, stride=1, padding=1)
        weights = outside + (1 - outside) * touched
        return Batch(self._latents[rows], context, weights, captions)
