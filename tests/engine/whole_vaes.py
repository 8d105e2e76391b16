"""A VAE that brings its latents to the denoiser's scale itself, by the arithmetic of its config.

Stock pipelines have nothing left to do with it, so none can forget anything.
"""

import copy

import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput

__all__ = ["whole"]


class _Scaled(DiagonalGaussianDistribution):
    """What a denoiser works on: (x - middle) / spread * scale of every x."""

    def __init__(self, parameters: torch.Tensor, scale: float, middle, spread) -> None:
        super().__init__(parameters)
        self.mean = (self.mean - middle) / spread * scale
        self.std = self.std / spread * scale


def whole(vae: AutoencoderKL) -> AutoencoderKL:
    config, made = vae.config, copy.deepcopy(vae)
    scale = config.scaling_factor
    shift = torch.tensor(config.latents_mean or config.shift_factor or 0.0).view(1, -1, 1, 1)
    spread = torch.tensor(config.latents_std or 1.0).view(1, -1, 1, 1)

    def encode(pixels: torch.Tensor, return_dict: bool = True) -> AutoencoderKLOutput:
        parameters = vae.encode(pixels).latent_dist.parameters
        return AutoencoderKLOutput(_Scaled(parameters, scale, shift, spread))

    def decode(latents: torch.Tensor, **options: object) -> object:
        return vae.decode(latents / scale * spread + shift, **options)

    made.__dict__.update(encode=encode, decode=decode)
    made.register_to_config(
        scaling_factor=1.0,
        shift_factor=None if config.shift_factor is None else 0.0,
        latents_mean=None,
        latents_std=None,
    )
    return made
