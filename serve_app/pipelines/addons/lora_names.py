"""`in_known_names`: names of layers that diffusers does not know, as those that it does."""

import re
from collections.abc import Mapping

import torch

__all__ = ["in_known_names"]

# What stands after the name of a layer.
_KIND = re.compile(
    r"(?P<layer>.+?)\."
    r"(?P<kind>(?:lora_|lora\.|lora_linear_layer\.)(?:A|B|down|up|mid)(?:\.default)?\.weight"
    r"|alpha|dora_scale|lora_magnitude_vector(?:\.default)?(?:\.weight)?|(?:hada|lokr)_\w+|diff)"
)
_HALVES = {"down": "A", "up": "B"}
_IN_UNET = r"(?:(?:down|up)_blocks|mid_block|(?:time|add)_embedding|conv_(?:in|out))\..+"
_IN_TRANSFORMER = r"(?:single_)?transformer_blocks\..+"
# By the whole name of a layer: what it becomes, with dots as peft has it.
_DOTTED = (
    (rf"({_IN_UNET})", r"unet.\1"),
    (rf"({_IN_TRANSFORMER})", r"transformer.\1"),
    (r"((?:text_model\.)?encoder\.layers\..+)", r"text_encoder.\1"),
)
# The same with underscores, as kohya has it.
_MAKERS = re.compile(
    r"(?:diffusion_model\.)?"
    r"(?P<name>(?:(?:input|output|double|single|joint)_blocks|middle_block)\.(?!.*\.processor\.).+)"
)
_FLAT = re.compile(
    r"(?:lora_transformer|lycoris)_(?P<blocks>(?:single_)?transformer_blocks)_(?P<number>\d+)_"
    r"(?P<layer>\w+)"
)
_FLAT_LAYERS = (
    *(f"attn.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0", "to_add_out")),
    *(f"attn.add_{name}_proj" for name in "qkv"),
    *(f"{side}.net.{name}" for side in ("ff", "ff_context") for name in ("0.proj", "2")),
    *("norm1.linear", "norm1_context.linear", "norm.linear", "proj_mlp", "proj_out"),
)
_BY_FLAT = {name.replace(".", "_"): name for name in _FLAT_LAYERS}


def in_known_names(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename what peft, ComfyUI, OneTrainer and LyCORIS name otherwise; the rest stays as it is."""
    return {_known(name): tensor for name, tensor in tensors.items()}


def _known(name: str) -> str:
    match = _KIND.fullmatch(name.removeprefix("base_model.model."))
    if match is None:
        return name
    layer, kind = match["layer"], match["kind"].replace(".default", "")
    if found := _FLAT.fullmatch(layer):
        if dotted := _BY_FLAT.get(found["layer"]):
            layer = f"transformer.{found['blocks']}.{found['number']}.{dotted}"
            kind = re.sub("(down|up)", lambda half: _HALVES[half[1]], kind)
        return f"{layer}.{kind}"
    if found := _MAKERS.fullmatch(layer):
        kind = kind.replace("lora_A", "lora_down").replace("lora_B", "lora_up")
        return f"lora_unet_{found['name'].replace('.', '_')}.{kind}"
    for pattern, dotted in _DOTTED:
        if found := re.fullmatch(pattern, layer):
            return f"{found.expand(dotted)}.{kind}"
    if layer.startswith("lycoris_"):
        layer = layer.replace("lycoris_", "lora_unet_", 1)
    return f"{layer}.{kind}"
