"""LoRAs and their like."""

import math


def layers_of(shapes, *parts):
    """The weights of layers whose names hold one of these parts, by name."""
    return {
        name.removesuffix(".weight"): shape
        for name, shape in shapes.items()
        if name.endswith(".weight") and len(shape) in (2, 4) and any(p in name for p in parts)
    }


ATTENTION = ("transformer_blocks", "proj_in", "proj_out")
TEXT = ("self_attn", "mlp")


def _down(shape, rank):
    return (rank, *shape[1:])


def _up(shape, rank):
    return (shape[0], rank, *(1,) * (len(shape) - 2))


def kohya(layers, prefix="lora_unet_", rank=16, has_alpha=True, dora=False):
    shapes = {}
    for layer, shape in layers.items():
        name = prefix + layer.replace(".", "_")
        shapes[f"{name}.lora_down.weight"] = _down(shape, rank)
        shapes[f"{name}.lora_up.weight"] = _up(shape, rank)
        if has_alpha:
            shapes[f"{name}.alpha"] = ()
        if dora:
            shapes[f"{name}.dora_scale"] = (shape[0], *(1,) * (len(shape) - 1))
    return shapes


def pairs(layers, prefix="unet.", rank=16, halves=("lora_A", "lora_B")):
    """As peft and diffusers write them."""
    shapes = {}
    for layer, shape in layers.items():
        shapes[f"{prefix}{layer}.{halves[0]}.weight"] = _down(shape, rank)
        shapes[f"{prefix}{layer}.{halves[1]}.weight"] = _up(shape, rank)
    return shapes


def processors(layers, prefix="unet.", rank=4):
    """As diffusers wrote them first: by the processors of the attentions."""
    shapes = {}
    for layer, shape in layers.items():
        if ".attn" in layer:
            block, _, name = layer.removesuffix(".0").rpartition(".")
            shapes[f"{prefix}{block}.processor.{name}_lora.down.weight"] = _down(shape, rank)
            shapes[f"{prefix}{block}.processor.{name}_lora.up.weight"] = _up(shape, rank)
    return shapes


def loha(layers, prefix="lora_unet_", rank=8):
    shapes = {}
    for layer, shape in layers.items():
        name = prefix + layer.replace(".", "_")
        for number in (1, 2):
            shapes[f"{name}.hada_w{number}_a"] = (shape[0], rank)
            shapes[f"{name}.hada_w{number}_b"] = (rank, math.prod(shape[1:]))
        shapes[f"{name}.alpha"] = ()
    return shapes


def full(layers, prefix="lora_unet_"):
    return {f"{prefix}{name.replace('.', '_')}.diff": shape for name, shape in layers.items()}


def lokr(layers, prefix="lora_unet_", factor=8, rank=None):
    """The first matrix is `factor` squared; the second whole, or of a rank."""
    shapes = {}
    for layer, shape in layers.items():
        name = prefix + layer.replace(".", "_")
        outer, inner = shape[0] // factor, shape[1] // factor
        shapes[f"{name}.lokr_w1"] = (factor, factor)
        if rank is None:
            shapes[f"{name}.lokr_w2"] = (outer, inner, *shape[2:])
        else:
            shapes[f"{name}.lokr_w2_a"] = (outer, rank)
            shapes[f"{name}.lokr_w2_b"] = (rank, math.prod((inner, *shape[2:])))
        shapes[f"{name}.alpha"] = ()
    return shapes
