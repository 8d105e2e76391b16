"""The names that the first Stable Diffusion gave its tensors, from those of diffusers."""

import re
from collections.abc import Callable, Iterator

import torch
from diffusers import DiffusionPipeline

__all__ = ["LEVELS", "original", "original_unet", "original_vae"]

LEVELS = 4
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET_TOP = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}

VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}


def original_unet(name: str, num_layers: int, has_attention: Callable[[int], bool]) -> str:
    """Rename a tensor of a UNet.

    num_layers: of a block on the way down; on the way up there is one more.
    has_attention: whether a block on the way up has any, by its number.
    """
    per_block = num_layers + 1  # with the sampler, or the layer more
    for ours, theirs in UNET_TOP.items():
        if name.startswith(f"{ours}."):
            return name.replace(ours, theirs, 1)
    found = re.match(r"(down|mid|up)_blocks?\.(?:(\d)\.)?(\w+)\.(\d)\.(.*)", name)
    assert found, name
    side, block, part, layer, rest = found.groups()
    block, layer = int(block or 0), int(layer)
    if part == "resnets":
        inner, _, tail = rest.partition(".")
        rest = f"{RESNET[inner]}.{tail}"
    place = {"resnets": 0, "attentions": 1}.get(part, 0)
    if side == "mid":
        return f"middle_block.{1 if place else 2 * layer}.{rest}"
    if part == "downsamplers":
        return f"input_blocks.{per_block * (block + 1)}.0.{rest.replace('conv', 'op')}"
    if part == "upsamplers":
        last = 2 if has_attention(block) else 1
        return f"output_blocks.{per_block * block + num_layers}.{last}.{rest}"
    if side == "down":
        return f"input_blocks.{per_block * block + layer + 1}.{place}.{rest}"
    return f"output_blocks.{per_block * block + layer}.{place}.{rest}"


def original_vae(name: str) -> str:
    """Rename a tensor of a VAE of four levels."""
    name = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    if "mid_block.attentions.0." in name:
        name = name.replace("mid_block.attentions.0", "mid.attn_1")
        for ours, theirs in VAE_ATTENTION.items():
            name = name.replace(f".{ours}.", f".{theirs}.")
    flip = lambda m: f"up.{LEVELS - 1 - int(m[1])}."  # noqa: E731
    name = re.sub(r"up_blocks\.(\d)\.", flip, name)
    return name.replace("resnets", "block").replace("upsamplers.0", "upsample")


def original(base: DiffusionPipeline) -> Iterator[tuple[str, torch.Tensor]]:
    """Name the tensors of a pipeline as a single file does."""
    ups, layers = base.unet.config.up_block_types, base.unet.config.layers_per_block
    for name, weight in base.unet.state_dict().items():
        renamed = original_unet(name, layers, lambda block: ups[block].startswith("Cross"))
        yield f"model.diffusion_model.{renamed}", weight
    for name, weight in base.vae.state_dict().items():
        is_matrix = "attentions" in name and weight.ndim == 2  # convolutions of one pixel there
        renamed = f"first_stage_model.{original_vae(name)}"
        yield renamed, weight[:, :, None, None] if is_matrix else weight
    for name, weight in base.text_encoder.state_dict().items():
        yield f"cond_stage_model.transformer.text_model.{name}", weight
