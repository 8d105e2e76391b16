"""Writes small IP adapters with random weights, in the format and folders of published ones.

They load as real ones do and need no download: for tests and for a first try.
"""

import math
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

__all__ = ["write_random_ip_adapter"]

Shapes = dict[str, tuple[int, ...]]

_ENCODER_WIDTH, _VECTOR_WIDTH = 16, 24  # of the image encoder's patches, and of its one vector
_TOKENS, _PLUS_LAYERS, _HEAD_WIDTH = 4, 4, 64  # fixed by the format


def write_random_ip_adapter(
    folder: Path, unet: UNet2DConditionModel, seed: int = 0, *, is_plus: bool = False
) -> None:
    """Write an adapter for UNets like this one, with an image encoder of its own.

    is_plus: its tokens are drawn from all patches of the picture, not from one vector.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _encoder().save_pretrained(folder / "image_encoder")
        layers = _layer_shapes(unet)
        width = layers["ip_adapter.1.to_k_ip.weight"][1]
        shapes = layers | (_plus_shapes(width) if is_plus else _shapes(width))
        weights = {name: _draw(shape) for name, shape in shapes.items()}
    save_file(weights, folder / "ip_adapter.safetensors")


def _draw(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape) / math.sqrt(shape[-1])


def _encoder() -> CLIPVisionModelWithProjection:
    """Make an image encoder that sees four patches."""
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=_ENCODER_WIDTH,
            intermediate_size=2 * _ENCODER_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=16,
            projection_dim=_VECTOR_WIDTH,
        )
    )


def _layer_shapes(unet: UNet2DConditionModel) -> Shapes:
    """Two matrices for each layer that attends to the text, numbered as in published files."""
    names = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    layers = [unet.get_submodule(name.removesuffix(".processor")) for name in names]
    return {
        f"ip_adapter.{2 * number + 1}.to_{kind}_ip.weight": tuple(layer.to_k.weight.shape)
        for number, layer in enumerate(layers)
        for kind in "kv"
    }


def _shapes(width: int) -> Shapes:
    """From the one vector of a picture to tokens."""
    return {
        "image_proj.proj.weight": (_TOKENS * width, _VECTOR_WIDTH),
        "image_proj.proj.bias": (_TOKENS * width,),
        "image_proj.norm.weight": (width,),
        "image_proj.norm.bias": (width,),
    }


def _plus_shapes(width: int) -> Shapes:
    """From all patches of a picture to tokens, by attention."""
    size = _ENCODER_WIDTH
    shapes: Shapes = {
        "latents": (1, _TOKENS, size),
        "proj_in.weight": (size, _ENCODER_WIDTH),
        "proj_in.bias": (size,),
        "proj_out.weight": (width, size),
        "proj_out.bias": (width,),
        "norm_out.weight": (width,),
        "norm_out.bias": (width,),
    }
    for number in range(_PLUS_LAYERS):
        attention, feed = f"layers.{number}.0", f"layers.{number}.1"
        for norm in (f"{attention}.norm1", f"{attention}.norm2", f"{feed}.0"):
            shapes |= {f"{norm}.weight": (size,), f"{norm}.bias": (size,)}
        shapes |= {
            f"{attention}.to_q.weight": (_HEAD_WIDTH, size),
            f"{attention}.to_kv.weight": (2 * _HEAD_WIDTH, size),
            f"{attention}.to_out.weight": (size, _HEAD_WIDTH),
            f"{feed}.1.weight": (4 * size, size),
            f"{feed}.3.weight": (size, 4 * size),
        }
    return {f"image_proj.{name}": shape for name, shape in shapes.items()}
