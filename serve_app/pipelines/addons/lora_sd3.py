"""`in_diffusers_names`: LoRAs of Stable Diffusion 3 in kohya's names, unknown to diffusers.

Their layers are those of the model's makers, who have queries, keys and values in one: a change of
the whole is one of each part, with the same lower matrix and the rows of its own.

Source: `networks/lora_sd3.py` of https://github.com/kohya-ss/sd-scripts, and the layers' names in
diffusers' `convert_sd3_transformer_checkpoint_to_diffusers`.
"""

import re
from collections.abc import Iterator, Mapping

import torch

__all__ = ["in_diffusers_names"]

Tensors = dict[str, torch.Tensor]
_NAME = re.compile(
    r"(?P<layer>lora_(?:unet|te[12])_\w+|diffusion_model\.[\w.]+?)"
    r"\.(?:lora_(?P<half>down|up|A|B)\.weight|alpha)"
)
_COMFY = "diffusion_model."
_BLOCK = re.compile(r"lora_unet_joint_blocks_(?P<number>\d+)_(?P<layer>(?:x|context)_block_\w+)")
_TEXT = re.compile(
    r"lora_te(?P<number>[12])_text_model_encoder_layers_(?P<layer>\d+)_(?P<part>self_attn|mlp)_"
    r"(?P<name>\w+)"
)
_IN_BLOCK: Mapping[str, tuple[str, ...]] = {
    "x_block_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "x_block_attn2_qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
    "context_block_attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "x_block_attn_proj": ("attn.to_out.0",),
    "x_block_attn2_proj": ("attn2.to_out.0",),
    "context_block_attn_proj": ("attn.to_add_out",),
    "x_block_mlp_fc1": ("ff.net.0.proj",),
    "x_block_mlp_fc2": ("ff.net.2",),
    "context_block_mlp_fc1": ("ff_context.net.0.proj",),
    "context_block_mlp_fc2": ("ff_context.net.2",),
    "x_block_adaLN_modulation_1": ("norm1.linear",),
    "context_block_adaLN_modulation_1": ("norm1_context.linear",),
}
_OUTSIDE = {
    "lora_unet_context_embedder": "context_embedder",
    "lora_unet_x_embedder_proj": "pos_embed.proj",
    "lora_unet_t_embedder_mlp_0": "time_text_embed.timestep_embedder.linear_1",
    "lora_unet_t_embedder_mlp_2": "time_text_embed.timestep_embedder.linear_2",
    "lora_unet_y_embedder_mlp_0": "time_text_embed.text_embedder.linear_1",
    "lora_unet_y_embedder_mlp_2": "time_text_embed.text_embedder.linear_2",
    "lora_unet_final_layer_linear": "proj_out",
    "lora_unet_final_layer_adaLN_modulation_1": "norm_out.linear",
}


def in_diffusers_names(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """Rename and part what is in kohya's or ComfyUI's names; the rest stays as it is.

    alphas that are there say nothing any more, and are left out.
    """
    named: Tensors = {}
    for name, tensor in tensors.items():
        match = _NAME.fullmatch(name)
        layers = tuple(_layers(match["layer"])) if match else ()
        if match is None or not layers:
            named[name] = tensor
        elif match["half"] in ("down", "A"):
            named |= {f"{layer}.lora_A.weight": tensor for layer in layers}
        elif match["half"] in ("up", "B"):
            lower = {"up": "down", "B": "A"}[match["half"]]
            width = tensors[f"{match['layer']}.lora_{lower}.weight"].shape[1]
            parts = _in_order(layers[0], tensor, width).chunk(len(layers))
            pairs = zip(layers, parts, strict=True)
            named |= {f"{layer}.lora_B.weight": part for layer, part in pairs}
    return named


def _layers(name: str) -> Iterator[str]:
    """Yield the layers that one of the makers is in diffusers, with their component."""
    if name.startswith(_COMFY):
        name = f"lora_unet_{name.removeprefix(_COMFY).replace('.', '_')}"
    if outside := _OUTSIDE.get(name):
        yield f"transformer.{outside}"
    elif found := _TEXT.fullmatch(name):
        end = "" if found["number"] == "1" else "_2"
        layer = f"encoder.layers.{found['layer']}.{found['part']}.{found['name']}"
        yield f"text_encoder{end}.text_model.{layer}"
    elif (found := _BLOCK.fullmatch(name)) and found["layer"] in _IN_BLOCK:
        for layer in _IN_BLOCK[found["layer"]]:
            yield f"transformer.transformer_blocks.{found['number']}.{layer}"


def _in_order(layer: str, up: torch.Tensor, width: int) -> torch.Tensor:
    """Exchange shift and scale where the model ends: there diffusers has the scale first.

    width: of what the layer sees. Only the last block makes no more than the two of the text.
    """
    is_last = layer.endswith("norm_out.linear")
    is_last |= layer.endswith("norm1_context.linear") and len(up) == 2 * width
    return torch.cat([*reversed(up.chunk(2))]) if is_last else up
