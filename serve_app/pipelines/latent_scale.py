"""What some stock pipelines forget between a VAE and the denoiser, made good at the VAE.

A denoiser works on latents around 0 of about unit spread. A VAE's config says how its own become
such: by a scale, which every pipeline heeds, and for some by a shift (SD3, Flux) or by the mean and
deviation of each channel (XL with them, such as Playground 2.5). diffusers 0.42 leaves the latter
two out in the classes listed here, so that their pictures have another tone than those of the
same checkpoint's other classes.
"""

import torch
from diffusers import AutoencoderKL, DiffusionPipeline
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput

__all__ = ["complete"]

_FORGET_ENCODING = (
    "StableDiffusionXLInpaintPipeline",
    "StableDiffusionXLControlNetInpaintPipeline",
)
_FORGET_DECODING = ("StableDiffusion3InpaintPipeline", "StableDiffusionXLControlNetInpaintPipeline")


def complete(vae: AutoencoderKL, pipeline: type[DiffusionPipeline]) -> None:
    """Add to a pipeline's own stand-in for a VAE what the pipeline's class leaves out."""
    found = _middle_and_spread(vae)
    if found is None:
        return
    middle, spread = found
    encode, decode = vae.encode, vae.decode

    def encode_wholly(pixels: torch.Tensor) -> AutoencoderKLOutput:
        latents: DiagonalGaussianDistribution = encode(pixels).latent_dist  # of this call alone
        latents.mean = (latents.mean - middle.to(latents.mean)) / spread.to(latents.mean)
        latents.std = latents.std / spread.to(latents.std)
        return AutoencoderKLOutput(latents)

    def decode_wholly(latents: torch.Tensor, **options: object) -> object:
        return decode(latents * spread.to(latents) + middle.to(latents), **options)

    if pipeline.__name__ in _FORGET_ENCODING:
        vae.__dict__["encode"] = encode_wholly
    if pipeline.__name__ in _FORGET_DECODING:
        vae.__dict__["decode"] = decode_wholly


def _middle_and_spread(vae: AutoencoderKL) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return what is 0 and 1 for the denoiser but for the scale, (1, C or 1, 1, 1)."""
    config = vae.config
    if config.latents_mean is not None and config.latents_std is not None:
        values = (config.latents_mean, config.latents_std)
    elif config.shift_factor:
        values = (config.shift_factor, 1.0)
    else:
        return None
    middle, spread = (torch.tensor(one).view(1, -1, 1, 1) for one in values)
    return middle, spread
