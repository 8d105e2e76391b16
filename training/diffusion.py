"""The noise schedule and the loss: v-prediction on linear betas.

The linear schedule ends at almost pure noise, so that the mean colour of a picture does not
leak into its last step (as it does with scaled-linear betas and few latent cells).
"""

from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel

from training.loop import autocast

__all__ = ["Example", "build_scheduler", "denoising_loss", "stratified_timesteps"]

_NUM_TIMESTEPS = 1000
# First and last timestep that decide on shapes, by the side of the latents: what covers more
# cells shows through more noise. Near the shift of Hoogeboom 2023, arXiv 2301.11093, section 3.1.
_SHAPE_STEPS = {16: (150, 800), 32: (250, 920)}
_SHAPE_SHARE = 0.75


@dataclass(frozen=True, slots=True)
class Example:
    """What a denoiser learns from: latents (B, 4, h, w), context, text, weights (B, 1, h, w).

    ``context`` (B, 5, h, w) is mask and masked latents, none for a 4-channel UNet; ``text`` is
    (B, T, D).
    """

    latents: torch.Tensor
    context: torch.Tensor | None
    text: torch.Tensor
    weights: torch.Tensor


def build_scheduler() -> DDIMScheduler:
    """Makes the shipped noise scheduler."""
    return DDIMScheduler(
        num_train_timesteps=_NUM_TIMESTEPS,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
        timestep_spacing="trailing",
    )


def stratified_timesteps(count: int, generator: torch.Generator, side: int) -> torch.Tensor:
    """Draws timesteps (B,), three quarters of them from the part where shapes are decided.

    One is drawn in each of ``count`` equal shares, shuffled; ``side`` is that of the latents.
    """
    shares = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    first, last = _SHAPE_STEPS[side]
    inner = first + shares / _SHAPE_SHARE * (last - first)
    anywhere = (shares - _SHAPE_SHARE) / (1 - _SHAPE_SHARE) * _NUM_TIMESTEPS
    steps = torch.where(shares < _SHAPE_SHARE, inner, anywhere)
    return steps.long()[torch.randperm(count, generator=generator)]


def denoising_loss(
    unet: UNet2DConditionModel,
    scheduler: DDIMScheduler,
    example: Example,
    generator: torch.Generator,
) -> torch.Tensor:
    """Weighted squared error of v (Salimans and Ho 2022, arXiv 2202.00512, section 4)."""
    latents = example.latents
    noise = torch.randn(latents.shape, generator=generator).to(latents.device)
    steps = stratified_timesteps(len(latents), generator, latents.shape[-1]).to(latents.device)
    noisy = scheduler.add_noise(latents, noise, steps)
    target = scheduler.get_velocity(latents, noise, steps)
    inputs = noisy if example.context is None else torch.cat([noisy, example.context], 1)
    with autocast(latents.device):
        output = unet(inputs, steps, example.text).sample
    error: torch.Tensor = output.float() - target
    return (example.weights * error.square()).mean()
