"""Soft masks: greys say how much of the schedule a place takes part in.

Before each step the places that are to change less than what is left of the schedule are held to
the original, noised as far as the rest is. Source: differential diffusion, Levin & Fried 2023,
arXiv 2306.00950, algorithm 1; with n steps to run, a place of the shade v takes part from step
n (1 - v) on. White is painted as by a hard mask, black is held to the end.

Stock inpainting pipelines do all else: `SoftMask` listens to how one begins, and changes latents
between steps. Rows of shared forwards belong to pipelines of their own, so each has its own mask.
"""

from collections.abc import Callable

import numpy as np
import torch
from diffusers import DiffusionPipeline, SchedulerMixin
from PIL import Image

__all__ = ["SoftMask"]


class SoftMask:
    """Holds the latents of one call of a stock inpainting pipeline. Only for the engine thread.

    Args:
        pipeline: of one request, not called yet.
        shades: mode L, of the size that the model works at, of whole latent cells.
    """

    def __init__(self, pipeline: DiffusionPipeline, shades: Image.Image) -> None:
        scale = int(pipeline.vae_scale_factor)
        kept = 255 - np.asarray(shades, np.float32)[::scale, ::scale]
        self._kept = torch.from_numpy(kept / np.float32(255))[None, None]
        self._original, self._noise = torch.empty(0), torch.empty(0)
        prepare = pipeline.prepare_latents

        def begin(*args: object, **kwargs: object) -> tuple[torch.Tensor, ...]:
            del pipeline.prepare_latents  # it would keep the pipeline alive
            return self._begin(pipeline, prepare, *args, **kwargs)

        pipeline.prepare_latents = begin

    def after(self, pipeline: DiffusionPipeline, step: int, latents: torch.Tensor) -> torch.Tensor:
        """Return the latents that the step behind `step` begins with, of the same shape."""
        following, steps = step + 1, int(pipeline.num_timesteps)
        if following == steps:
            return latents
        # Strength cuts off the beginning of the schedule.
        timestep = pipeline.scheduler.timesteps[-steps:][following]
        return self._held(pipeline.scheduler, following / steps, timestep, latents)

    def _begin(
        self,
        pipeline: DiffusionPipeline,
        prepare: Callable[..., tuple[torch.Tensor, ...]],
        *args: object,
        **kwargs: object,
    ) -> tuple[torch.Tensor, ...]:
        """Remember original and noise; at full strength pipelines begin with noise alone."""
        given = [one for one in args if isinstance(one, torch.Generator)]
        state = given[0].get_state()
        outputs = prepare(*args, **kwargs)
        latents, self._noise = outputs[:2]
        if len(outputs) > 2:
            self._original = outputs[2]
        else:  # the denoiser sees the original itself, so the pipeline needs no latents of it
            again = torch.Generator().set_state(state)
            image = kwargs["image"]
            assert isinstance(image, torch.Tensor), "stock pipelines hand pixels on"
            image = image.to(latents.device, latents.dtype)
            self._original = pipeline._encode_vae_image(image=image, generator=again)
        self._kept = _like(pipeline, self._kept, latents)
        timestep = kwargs["timestep"] if "timestep" in kwargs else args[1]
        return (self._held(pipeline.scheduler, 0.0, timestep, latents), *outputs[1:])

    def _held(
        self, scheduler: SchedulerMixin, threshold: float, timestep: object, latents: torch.Tensor
    ) -> torch.Tensor:
        times = torch.as_tensor(timestep).reshape(-1)
        if hasattr(scheduler, "scale_noise"):
            noised = scheduler.scale_noise(self._original, times, self._noise)
        else:
            noised = scheduler.add_noise(self._original, self._noise, times)
        return torch.where(self._kept > threshold, noised.to(latents.dtype), latents)


def _like(pipeline: DiffusionPipeline, cells: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """Lay out cells, (1, 1, h, w), as latents are: (1, C, h, w), or (1, T, 4C) where packed."""
    cells = cells.to(latents.device)
    if latents.dim() == 4:
        return cells
    channels, (height, width) = latents.shape[-1] // 4, cells.shape[2:]
    wide = cells.expand(1, channels, height, width)
    packed = pipeline._pack_latents(wide, 1, channels, height, width)
    assert isinstance(packed, torch.Tensor), "packing gives a tensor"
    return packed
