"""The parts of a file: which component each tensor belongs to, how large it is, how precise."""

import re
from collections import defaultdict
from collections.abc import Mapping

from serve_app.models.inspect.inspection import Part
from serve_app.models.inspect.layout import Sign, first_meaning
from serve_app.models.inspect.names import Names
from serve_app.models.weights.header import Tensor

__all__ = ["TEXT_ENCODERS", "part_of", "parts_of", "quantization", "text_encoder_name"]

# What names begin with, the longer beginnings first.
_PLACES = {
    "model.diffusion_model.": "denoiser",
    "diffusion_model.": "denoiser",
    "unet.": "denoiser",
    "transformer.": "denoiser",
    "lora_unet_": "denoiser",
    "lora_transformer_": "denoiser",
    "model_ema.": "ema",
    "first_stage_model.": "vae",
    "vae.": "vae",
    "control_model.": "controlnet",
    "cond_stage_model.model.": "clip_h",
    "cond_stage_model.": "clip_l",
    "conditioner.embedders.0.model.": "clip_g",
    "conditioner.embedders.0.": "clip_l",
    "conditioner.embedders.1.": "clip_g",
    "text_encoders.clip_l.": "clip_l",
    "text_encoders.clip_g.": "clip_g",
    "text_encoders.t5xxl.": "t5xxl",
    "text_encoder.": "text_encoder",
    "text_encoder_2.": "text_encoder_2",
    "text_encoder_3.": "text_encoder_3",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "lora_te3_": "text_encoder_3",
    "image_proj.": "image_proj",
    "ip_adapter.": "ip_adapter",
}
_PLACE = re.compile("|".join(re.escape(start) for start in _PLACES))
_EMBEDDED = re.compile(r"(token_embedding|embed_tokens|shared)\.weight$")
# The names of text encoders, by the width of what they tell the denoiser.
TEXT_ENCODERS = {768: "clip_l", 1024: "clip_h", 1280: "clip_g", 4096: "t5xxl"}

_PRECISIONS = {
    "F64": "fp64",
    "F32": "fp32",
    "F16": "fp16",
    "BF16": "bf16",
    "F8_E4M3": "fp8",
    "F8_E5M2": "fp8",
}
_MIXED = 0.01  # share of the bytes from which on a second precision counts
_QUANTIZATIONS: tuple[Sign[str], ...] = (
    Sign("nf4", "*quant_state.bitsandbytes__nf4"),
    Sign("fp4", "*quant_state.bitsandbytes__fp4"),
    Sign("int8", "*.SCB"),
    Sign("scaled fp8", "*scaled_fp8"),
    Sign("scaled fp8", "*.(scale_weight|weight_scale)"),
)


def parts_of(tensors: Mapping[str, Tensor], rest: str, denoiser: str) -> tuple[Part, ...]:
    """Sort tensors by component, in the order of the file.

    Args:
        rest: what names belong to that begin with none of the known beginnings; empty: to nothing,
            like the constants of a noise schedule.
        denoiser: unet or transformer.
    """
    places: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        found = _PLACE.match(name)
        place = rest if found is None else _PLACES[found[0]]
        places[place][name] = tensor
    parts: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
    for place, own in places.items():
        parts[denoiser if place == "denoiser" else text_encoder_name(place, own)] |= own
    return tuple(part_of(name, own) for name, own in parts.items() if name)


def text_encoder_name(place: str, tensors: Mapping[str, Tensor]) -> str:
    """Name a text encoder by the width of its words, where that is a known one.

    Anything but a text encoder keeps the name of its place.
    """
    if not place.startswith("text_encoder"):
        return place
    words = (tensor for name, tensor in tensors.items() if _EMBEDDED.search(name))
    widths = [tensor.shape[-1] for tensor in words if tensor.shape]
    return TEXT_ENCODERS.get(widths[0], place) if widths else place


def part_of(name: str, tensors: Mapping[str, Tensor]) -> Part:
    """Sum up the tensors of one component."""
    num_bytes: defaultdict[str, int] = defaultdict(int)
    for tensor in tensors.values():
        begin, end = tensor.data_offsets
        num_bytes[tensor.dtype] += end - begin
    return Part(
        name=name,
        num_tensors=len(tensors),
        num_bytes=sum(num_bytes.values()),
        precision=_precision(num_bytes),
    )


def _precision(num_bytes: Mapping[str, int]) -> str:
    floats: defaultdict[str, int] = defaultdict(int)
    for dtype, own in num_bytes.items():
        if dtype in _PRECISIONS:
            floats[_PRECISIONS[dtype]] += own
    total = sum(floats.values())
    weighty = [precision for precision, own in floats.items() if own > _MIXED * total]
    if not weighty:
        return "none"
    return weighty[0] if len(weighty) == 1 else "mixed"


def quantization(names: Names) -> str | None:
    """Return how numbers are packed that need scales beside them."""
    return first_meaning(_QUANTIZATIONS, names)
