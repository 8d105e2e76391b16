"""LoRAs and their like: whose names they have, which family they fit, their rank and alpha."""

import json
import math
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import islice

from serve_app.models.inspect.inspection import Family
from serve_app.models.inspect.layout import Families, Sign, first_meaning
from serve_app.models.inspect.layouts import DOWN
from serve_app.models.inspect.names import Names
from serve_app.models.weights.header import Tensor

__all__ = ["NAMINGS", "ReadTensor", "adapter_alpha", "adapter_families", "adapter_rank", "naming"]

ReadTensor = Callable[[Tensor], bytes]
_SD1, _SD2, _XL, _REFINER, _SD3, _FLUX = Family
_CLIP_L: Families = (_SD1, _XL, _SD3, _FLUX)  # all have this text encoder

# What a file's names begin with, and so who wrote it or whom he followed.
NAMINGS: tuple[Sign[str], ...] = (
    Sign("kohya, Flux blocks", "lora_unet_(double|single)_blocks_*"),
    Sign("kohya, SD3 blocks", "lora_unet_joint_blocks_*"),
    Sign("kohya, LDM blocks", "lora_unet_(input_blocks|middle_block|output_blocks)_*"),
    Sign("kohya, diffusers blocks", "lora_unet_*"),
    Sign("OneTrainer, transformer", "lora_transformer_*"),
    Sign("kohya, text encoder alone", "lora_te[123]?_*"),
    Sign("LyCORIS", "lycoris_*"),
    Sign("XLabs, Flux processors", "(diffusion_model.)?(double|single)_blocks.#.processor.*"),
    Sign("ComfyUI", "diffusion_model.(input|output|middle|double|single|joint)_block*"),
    Sign("Flux blocks, no prefix", "(double|single)_blocks.#.*"),
    Sign("peft with unet. or text_encoder.", "(unet|text_encoder|text_encoder_[23]).*"),
    Sign("peft with transformer.", "transformer.(single_)?transformer_blocks.*"),
    Sign("peft, no prefix", "(base_model.model.)?(down_blocks|mid_block|up_blocks).*"),
    Sign("peft, no prefix, transformer", "(base_model.model.)?(single_)?transformer_blocks.#.*"),
    Sign("peft, no prefix, text encoder", "(base_model.model.)?(text_model.)?encoder.layers.*"),
)

_TEXT_WIDTHS: dict[int, Families] = {768: (_SD1,), 1024: (_SD2,), 2048: (_XL,), 1280: (_REFINER,)}
_TO_TEXT = "*attn2[._](processor.)?to_[kv]"
_FACTORS = (  # of a layer's change; the input's size is the product of their last sizes
    (DOWN,),
    (".hada_w1_b",),
    (".lokr_w1(_b)?", ".lokr_w2(_b)?"),
    (".diff",),
)
_INPUT_OF_DIT = f"*transformer_blocks[._]0[._]attn[._]to_q*{DOWN}"
_Q_PROJ = f"[._]*layers[._]0[._]self_attn[._](q_proj|to_q)*{DOWN}"
_SIGNS: tuple[Sign[Families], ...] = (
    Sign((_FLUX,), "*((double|single)_blocks|single_transformer_blocks)[._]#[._]*"),
    Sign((_SD3,), "*(joint_blocks[._]#[._]|lora_te3_)*"),
    Sign((_SD3,), _INPUT_OF_DIT, -1, 1536),
    Sign((_SD3,), _INPUT_OF_DIT, -1, 2432),
    Sign((_FLUX,), _INPUT_OF_DIT, -1, 3072),
    # XL has several transformer layers in a block, and none in the first blocks.
    Sign((_XL,), "*_blocks[._]#[._](1|attentions[._]#)[._]transformer_blocks[._][1-9]*"),
    Sign((_SD1, _SD2), "*(input_blocks[._]1[._]1|down_blocks[._]0[._]attentions)[._]*"),
    Sign((_SD1,), f"lora_te{_Q_PROJ}", -1, 768),
    Sign((_SD2,), f"lora_te{_Q_PROJ}", -1, 1024),
    Sign((_XL, _SD3), "(lora_te2_|text_encoder_2.text_model|text_encoder_2.encoder.layers)*"),
    Sign((_XL, _SD3, _FLUX), "lora_te1_*"),
    Sign((_SD2,), f"(text_encoder.|base_model.model.)?(text_model.)?encoder{_Q_PROJ}", -1, 1024),
    Sign(_CLIP_L, f"(text_encoder.|base_model.model.)?(text_model.)?encoder{_Q_PROJ}", -1, 768),
)

_RANKED = (f"*{DOWN}", "*.(hada_w1_b|lokr_w2_b|lokr_w1_b)")  # (rank, ...)
_MAX_ALPHAS = 64  # layers looked at; few files have more than one alpha
_FORMATS = {"F64": "<d", "F32": "<f", "F16": "<e"}


def naming(names: Names) -> str | None:
    """Return whose names a file has; None: names that no trainer known here writes."""
    return first_meaning(NAMINGS, names)


def adapter_families(names: Names) -> Families:
    """Return the families it fits: by the text that its layers attend to, or by their names."""
    width = _text_width(names)
    return _TEXT_WIDTHS.get(width or 0) or first_meaning(_SIGNS, names) or ()


def _text_width(names: Names) -> int | None:
    for factors in _FACTORS:
        sizes = [names.size(f"{_TO_TEXT}*{factor}", -1) for factor in factors]
        if None not in sizes:
            product = 1
            for size in sizes:
                product *= size or 0
            return product
    return None


def adapter_rank(names: Names) -> int | None:
    """Return the rank that most layers have; None: whole matrices."""
    for pattern in _RANKED:
        shapes = (names.tensors[name].shape for name in names.find_all(pattern))
        ranks = Counter(shape[0] for shape in shapes if shape)
        if ranks:
            return ranks.most_common(1)[0][0]
    return None


def adapter_alpha(names: Names, metadata: Mapping[str, str], read: ReadTensor) -> float | None:
    """Return the alpha that most layers have: by tensors, or else by what the header says."""
    alphas = Counter(alpha for alpha in _alphas(names, read) if math.isfinite(alpha))
    if alphas:
        return alphas.most_common(1)[0][0]
    return _number(metadata.get("ss_network_alpha")) or _peft_alpha(metadata)


def _alphas(names: Names, read: ReadTensor) -> Iterator[float]:
    for name in islice(names.find_all("*.alpha"), _MAX_ALPHAS):
        tensor = names.tensors[name]
        begin, end = tensor.data_offsets
        form = _FORMATS.get(tensor.dtype)
        if tensor.dtype == "BF16" and end - begin == 2:  # the upper half of a float32
            yield struct.unpack("<f", b"\0\0" + read(tensor))[0]
        elif form is not None and end - begin == struct.calcsize(form):
            yield struct.unpack(form, read(tensor))[0]


def _peft_alpha(metadata: Mapping[str, str]) -> float | None:
    """Read `lora_alpha` of any component in diffusers' `lora_adapter_metadata`."""
    try:
        said = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except (ValueError, RecursionError):
        return None
    pairs = said.items() if isinstance(said, dict) else ()
    return next((_number(value) for name, value in pairs if name.endswith("lora_alpha")), None)


def _number(value: object) -> float | None:
    try:
        number = float(value) if isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
