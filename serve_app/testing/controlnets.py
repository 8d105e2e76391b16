"""Writes small ControlNets with random weights, in diffusers' folder format.

They load as real ones do and need no download: for tests, benchmarks and for a first try.
"""

from pathlib import Path

import torch
from diffusers import ControlNetModel, UNet2DConditionModel

__all__ = ["random_controlnet", "write_random_controlnet"]

_OUTPUT = 0.3  # spread of the last layers' weights, which training starts from zero


def random_controlnet(
    unet: UNet2DConditionModel, seed: int = 0, cell_px: int = 8, **settings: object
) -> ControlNetModel:
    """Make a ControlNet for UNets like this one, of four latent channels or of nine.

    cell_px: side of a latent cell. settings: of its config, in place of the usual ones.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        own = ControlNetModel.from_unet(unet, load_weights_from_unet=False).config
        levels = tuple(8 * 2**level for level in range(cell_px.bit_length()))
        changes = {"in_channels": 4, "conditioning_embedding_out_channels": levels}
        net = ControlNetModel.from_config(own, **changes | settings)
        last = [*net.controlnet_down_blocks, net.controlnet_mid_block]
        for layer in (*last, net.controlnet_cond_embedding.conv_out):
            torch.nn.init.normal_(layer.weight, std=_OUTPUT / layer.in_channels**0.5)
    return net.eval()


def write_random_controlnet(
    folder: Path, unet: UNet2DConditionModel, seed: int = 0, **settings: object
) -> None:
    """Write what `random_controlnet` makes."""
    random_controlnet(unet, seed, **settings).save_pretrained(folder)  # type: ignore[arg-type]
