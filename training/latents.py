"""A pool of encoded tasks, so that the autoencoder runs far less often than the UNet.

Every task is drawn and encoded once and trained on several times, each time with other noise
and other words; a few entries are replaced at each refill.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn import functional as F

from training.caption import caption_of
from training.mask import Task
from training.sampling import Wish
from training.scene import draw
from training.vae import to_tensor

__all__ = ["Batch", "LatentPool", "TaskMaker", "encode_tasks"]

TaskMaker = Callable[[np.random.Generator, int], Task]
_ENCODE_ROWS = 8


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
    with torch.autocast(device.type, torch.bfloat16):
        clean = vae.encode(pictures).latent_dist.mean
        hidden = vae.encode(pictures * (1 - masks)).latent_dist.sample()
    small = F.interpolate(masks, clean.shape[-2:])
    return clean.float(), torch.cat([small, hidden.float()], 1)


class LatentPool:
    """Encoded tasks of one picture size, drawn by ``make_task(rng, size_px)``."""

    def __init__(
        self,
        vae: AutoencoderKL,
        make_task: TaskMaker,
        size_px: int,
        rng: np.random.Generator,
    ) -> None:
        self._vae, self._make_task, self._size_px, self._rng = vae, make_task, size_px, rng
        self._latents: list[torch.Tensor] = []
        self._context: list[torch.Tensor] = []
        self._wishes: list[tuple[Wish, bool]] = []
        self._next = 0

    def grow_to(self, count: int) -> None:
        """Encodes tasks until there are ``count``; does nothing once there are."""
        while len(self._wishes) < count:
            self._add(grow=True)

    def refill(self, count: int) -> None:
        """Encodes ``count`` new tasks in the place of the oldest ones, if there are any."""
        for _ in range(0, count if self._wishes else 0, _ENCODE_ROWS):
            self._add(grow=False)

    def _add(self, grow: bool) -> None:
        tasks = [self._make_task(self._rng, self._size_px) for _ in range(_ENCODE_ROWS)]
        latents, context = encode_tasks(self._vae, tasks, self._size_px)
        for row, task in enumerate(tasks):
            self._put((latents[row], context[row], (task.wish, task.is_full)), grow)

    def _put(self, entry: tuple[torch.Tensor, torch.Tensor, tuple[Wish, bool]], grow: bool) -> None:
        if grow:
            self._latents.append(entry[0])
            self._context.append(entry[1])
            self._wishes.append(entry[2])
            return
        self._latents[self._next], self._context[self._next], self._wishes[self._next] = entry
        self._next = (self._next + 1) % len(self._wishes)

    def batch(self, count: int, rng: np.random.Generator, outside: float = 0.25) -> Batch:
        """Draws rows with fresh captions; the part to repaint weighs 1, the rest ``outside``."""
        rows = rng.integers(len(self._wishes), size=count)
        context = torch.stack([self._context[row] for row in rows])
        captions = []
        for row in rows:
            wish, is_full = self._wishes[row]
            captions.append(caption_of(wish, rng, 0.75 if is_full else 0.5))
        touched = F.max_pool2d(context[:, :1], 3, stride=1, padding=1)
        weights = outside + (1 - outside) * touched
        return Batch(torch.stack([self._latents[r] for r in rows]), context, weights, captions)
