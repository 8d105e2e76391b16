"""A denoiser that knows the picture, and the stock pipelines' loop around it.

Whatever the sampler, such a denoiser must come out at its picture. It sees what a UNet sees, the
noisy latents and the timestep, and knows the noise schedule that the checkpoint was trained with;
it looks at nothing of the sampler's.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import diffusers
import numpy as np
import torch
from diffusers import DiffusionPipeline, SchedulerMixin

from serve_app.pipelines.families import FAMILIES, accepted
from serve_app.types import Kind

__all__ = ["Checkpoint", "Denoiser", "Pictures", "paint", "residual"]

_SHAPE = (1, 4, 8, 8)
_SEED = 1
_LEAST_SIGNAL = 2**-24  # stands for none, as in diffusers


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says of its scheduler.

    family: of pipelines; their constructors rewrite the configuration, each in its way.
    scheduler: name of the class. config: as in the checkpoint's file.
    """

    family: str
    scheduler: str
    config: Mapping[str, object]

    @functools.cached_property
    def base(self) -> SchedulerMixin:
        """The checkpoint's own scheduler, as diffusers makes it from the file."""
        return getattr(diffusers, self.scheduler).from_config(dict(self.config))


class Denoiser:
    """Gives what a perfect model of one picture would predict.

    Args:
        base: the checkpoint's own scheduler.
        picture: latents, float64.
        spread: standard deviation of what the model takes for this picture; where there is less
            noise than this it trusts what it sees. Zero: it knows the picture exactly.
    """

    def __init__(self, base: SchedulerMixin, picture: torch.Tensor, spread: float = 0.0) -> None:
        signal = base.alphas_cumprod.double().numpy().copy()
        signal[signal == 0] = _LEAST_SIGNAL
        self._log_levels = np.log((1 - signal) / signal) / 2
        self._timesteps = np.arange(len(signal))
        self._prediction = base.config.prediction_type
        self._picture = picture
        self._spread = spread

    def __call__(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """Predict noise, velocity or picture, as the checkpoint does; noise levels lie between
        those of whole timesteps on a logarithmic scale.
        """
        level = float(np.exp(np.interp(float(timestep), self._timesteps, self._log_levels)))
        signal = (1 + level**2) ** -0.5
        noise = level * signal
        seen = sample.double()
        trust = self._spread**2 * signal / ((self._spread * signal) ** 2 + noise**2)
        picture = self._picture + trust * (seen - signal * self._picture)
        found = (seen - signal * picture) / noise
        predictions: dict[str, torch.Tensor] = {
            "epsilon": found,
            "v_prediction": signal * found - noise * picture,
            "sample": picture,
        }
        return predictions[str(self._prediction)].to(sample.dtype)


@dataclass(frozen=True)
class Pictures:
    """Latents of standard deviation 1, many of them beyond 1.

    init: the picture to begin with. mask: 1 where an inpaint repaints.
    wanted: what the denoiser knows; another thing than `init` only where nothing is left of that.
    """

    init: torch.Tensor
    mask: torch.Tensor
    wanted: torch.Tensor

    @classmethod
    @functools.cache
    def of(cls, kind: Kind, strength: float) -> "Pictures":
        """Make the pictures of a kind of request."""
        generator = torch.Generator().manual_seed(5)
        init, other = (
            (latents - latents.mean()) / latents.std()
            for latents in torch.randn((2, *_SHAPE), generator=generator, dtype=torch.float64)
        )
        mask = torch.zeros((1, 1, *_SHAPE[2:]))
        mask[..., 2:6, 1:7] = 1
        is_new = kind is Kind.INPAINT and strength == 1
        return cls(init, mask, torch.where(mask.bool() & is_new, other, init))


def paint(
    checkpoint: Checkpoint,
    kind: Kind,
    scheduler: SchedulerMixin,
    steps: int,
    strength: float,
    denoiser: Denoiser,
) -> torch.Tensor:
    """Run the stock pipelines' loop with their own parts, without guidance; gives latents."""
    pictures = Pictures.of(kind, strength)
    init = pictures.init.float()
    pipeline = _pipeline(checkpoint.family, kind, scheduler)
    generator = torch.Generator().manual_seed(_SEED)
    noise = torch.randn(_SHAPE, generator=generator)
    scheduler.set_timesteps(steps, device=torch.device("cpu"))
    timesteps = scheduler.timesteps
    if kind is not Kind.TEXT2IMG:
        timesteps, _ = pipeline.get_timesteps(steps, strength, torch.device("cpu"))
    latents: torch.Tensor
    if kind is Kind.TEXT2IMG or (kind is Kind.INPAINT and strength == 1):
        latents = noise * scheduler.init_noise_sigma
    else:
        latents = scheduler.add_noise(init, noise, timesteps[:1])
    arguments = pipeline.prepare_extra_step_kwargs(generator, 0.0)
    for timestep, following in zip(timesteps, [*timesteps[1:], None], strict=True):
        model_input = scheduler.scale_model_input(latents, timestep)
        predicted = denoiser(model_input, timestep)
        latents = scheduler.step(predicted, timestep, latents, **arguments, return_dict=False)[0]
        if kind is Kind.INPAINT:
            known = init
            if following is not None:
                known = scheduler.add_noise(init, noise, torch.tensor([following]))
            latents = (1 - pictures.mask) * known + pictures.mask * latents
    return latents


def residual(
    checkpoint: Checkpoint,
    kind: Kind,
    scheduler: SchedulerMixin,
    steps: int,
    strength: float,
    spread: float = 0.0,
) -> float:
    """Root mean square of what differs from the picture, in the picture's standard deviations."""
    wanted = Pictures.of(kind, strength).wanted
    denoiser = Denoiser(checkpoint.base, wanted, spread)
    latents = paint(checkpoint, kind, scheduler, steps, strength, denoiser)
    return float((latents.double() - wanted).square().mean().sqrt() / wanted.std())


def _pipeline(family: str, kind: Kind, scheduler: SchedulerMixin) -> DiffusionPipeline:
    """Make a stock pipeline that has a scheduler and nothing else."""
    cls = FAMILIES[family].pipelines[kind]
    parts = {
        "scheduler": scheduler,
        "requires_safety_checker": False,
        "add_watermarker": False,
        "force_zeros_for_empty_prompt": True,
    }
    names = [name for name in accepted(cls.__init__).parameters if name != "self"]
    return cls(**{name: parts.get(name) for name in names})
