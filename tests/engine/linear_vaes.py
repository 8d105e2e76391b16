"""A VAE of the stock class that computes something known: latents are mixtures of colours.

What it decodes is the mean colour of each latent cell. Random VAEs decode noise, whatever is
encoded. Each colour goes through the layers beside its negative: so the mean that a norm takes away
is 0, and silu(x) - silu(-x) = x. Values are so small that a norm divides them by its epsilon alone.
"""

import torch
from diffusers import AutoencoderKL
from torch import nn

__all__ = ["make_linear"]

_SMALL = 1e-5  # of a colour inside
_NORM_GAIN = 1e3  # 1 / sqrt(epsilon)


def make_linear(vae: AutoencoderKL) -> AutoencoderKL:
    """Set the weights of a VAE that is 8 and 16 channels wide, with norms of 4 groups."""
    encoder, decoder, channels = vae.encoder, vae.decoder, vae.config.latent_channels
    narrow, wide = _pairs(8), _pairs(16)
    mixtures = torch.randn(channels, 3, generator=torch.Generator().manual_seed(7))
    out_gain = 1 / (_SMALL * _NORM_GAIN)
    with torch.no_grad():
        for part in vae.modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                part.weight.zero_()
                part.bias.zero_()
        encoder.conv_in.weight[:, :, 1, 1] = _SMALL * narrow
        encoder.down_blocks[0].downsamplers[0].conv.weight[:, :, :2, :2] = (
            torch.eye(8)[..., None, None] / 4
        )
        encoder.down_blocks[1].resnets[0].conv_shortcut.weight[:, :, 0, 0] = wide @ narrow.T / 2
        encoder.conv_out.weight[:channels, :, 1, 1] = out_gain * mixtures @ wide.T
        vae.quant_conv.weight[:, :, 0, 0] = torch.eye(2 * channels)
        vae.quant_conv.bias[channels:] = -30  # of the noise, the logarithm of its variance
        vae.post_quant_conv.weight[:, :, 0, 0] = torch.eye(channels)
        decoder.conv_in.weight[:, :, 1, 1] = _SMALL * wide @ torch.linalg.pinv(mixtures)
        decoder.up_blocks[0].upsamplers[0].conv.weight[:, :, 1, 1] = torch.eye(16)
        decoder.up_blocks[1].resnets[0].conv_shortcut.weight[:, :, 0, 0] = narrow @ wide.T / 2
        decoder.conv_out.weight[:, :, 1, 1] = out_gain * narrow.T
    return vae


def _pairs(width: int) -> torch.Tensor:
    """Return which channels hold each colour and its negative, (width, 3): a norm's group each."""
    pairs = torch.zeros(width, 3)
    for colour in range(3):
        pairs[colour * width // 4, colour], pairs[colour * width // 4 + 1, colour] = 1, -1
    return pairs
