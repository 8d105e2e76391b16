"""The table of layouts: by which names and shapes a file is known. A new layout is a row.

Sources: diffusers' `single_file_utils.py` and `lora_conversion_utils.py`, kohya's sd-scripts,
LyCORIS, spandrel, and the headers of published files. Patterns are those of `Names`.
"""

from serve_app.models.inspect.denoisers import CONTROLNETS, MODELS
from serve_app.models.inspect.inspection import Family, FileType
from serve_app.models.inspect.layout import Families, Layout, Sign
from serve_app.models.inspect.others import OTHERS

__all__ = ["DOWN", "LAYOUTS"]

_SD1, _SD2, _XL, _REFINER, _SD3, _FLUX = Family


# -- Adapters: by how they say what is to be added ------------------------------------------------

# The matrix of a layer that its input meets first.
DOWN = "[._]lora(_down|_A(.default)?|(#)?.down|_linear_layer.down).weight"
_CONV = (
    "(resnets|in_layers|out_layers|skip_connection|samplers|conv_(in|out)|[._](op|[12][._]conv))"
)
_ADAPTERS = (
    Layout("LoKr", FileType.LOKR, ("*.lokr_w(1|2)(_a|_b)?",)),
    Layout("LoHa", FileType.LOHA, ("*.hada_w1_a",)),
    Layout("DoRA", FileType.DORA, (f"*{DOWN}", "*.(dora_scale|lora_magnitude_vector*)")),
    Layout("LoCon", FileType.LOCON, (f"*{DOWN}", "*.lora_mid.weight")),
    Layout("LoCon", FileType.LOCON, (f"*{DOWN}", f"*{_CONV}[._]*")),
    Layout("LoRA", FileType.LORA, (f"*{DOWN}",)),
    Layout("LyCORIS full differences", FileType.LORA, ("*.diff",)),
)
_IP_VARIANTS = (
    Sign("face id", "(image_proj.perceiver_resampler|ip_adapter.#.to_(q|k|v|out)_lora).*"),
    Sign("plus", "image_proj.latents"),
    Sign("full face", "image_proj.proj.3.weight"),
)
_IP_KEYS = "ip_adapter.#.to_k_ip.weight"
_IP_ADAPTERS = (
    Layout(
        "IP adapter",
        FileType.IP_ADAPTER,
        ("image_proj.*", _IP_KEYS),
        family_signs=(
            Sign((_SD1,), _IP_KEYS, 1, 768),
            Sign((_SD2,), _IP_KEYS, 1, 1024),
            Sign((_XL,), _IP_KEYS, 1, 2048),
        ),
        variants=_IP_VARIANTS,
    ),
    Layout(
        "XLabs Flux IP adapter",
        FileType.IP_ADAPTER,
        ("ip_adapter_proj_model.*", "double_blocks.#.processor.ip_adapter_*"),
        families=(_FLUX,),
    ),
)

# -- VAEs, text encoders, upscalers, embeddings ---------------------------------------------------

_VAE = "(first_stage_model.|vae.)?"
_VAE_INPUT = f"{_VAE}decoder.conv_in.weight"
_VAE_FAMILIES: tuple[Sign[Families], ...] = (
    Sign((_SD1, _SD2, _XL), _VAE_INPUT, 1, 4),
    Sign((_SD3, _FLUX), _VAE_INPUT, 1, 16),
)


def _vae(name: str, *keys: str) -> Layout:
    return Layout(name, FileType.VAE, keys, family_signs=_VAE_FAMILIES, channels=(_VAE_INPUT, 1, 1))


_CLIP_FAMILIES: tuple[Sign[Families], ...] = tuple(
    Sign(families, "*token_embedding.weight", 1, width)
    for width, families in (
        (768, (_SD1, _XL, _SD3, _FLUX)),
        (1024, (_SD2,)),
        (1280, (_XL, _REFINER, _SD3)),
    )
)
_FILES = (
    _vae(
        "LDM VAE",
        f"{_VAE}encoder.down.0.block.0.conv1.weight",
        f"{_VAE}decoder.up.0.block.0.conv1.weight",
    ),
    _vae(
        "diffusers VAE",
        f"{_VAE}encoder.down_blocks.0.resnets.0.conv1.weight",
        f"{_VAE}decoder.up_blocks.0.resnets.0.conv1.weight",
    ),
    Layout(
        "CLIP text encoder",
        FileType.TEXT_ENCODER,
        ("(*.)?embeddings.token_embedding.weight", "(*.)?encoder.layers.0.self_attn.q_proj.weight"),
        family_signs=_CLIP_FAMILIES,
    ),
    Layout(
        "OpenCLIP text encoder",
        FileType.TEXT_ENCODER,
        ("*token_embedding.weight", "*transformer.resblocks.0.attn.in_proj_weight"),
        family_signs=_CLIP_FAMILIES,
    ),
    Layout(
        "T5 text encoder",
        FileType.TEXT_ENCODER,
        ("*encoder.block.0.layer.0.SelfAttention.q.weight",),
        families=(_SD3, _FLUX),
    ),
    Layout(
        "ESRGAN upscaler",
        FileType.UPSCALER,
        ("model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight"),
        variants=(Sign("ESRGAN+", "model.1.sub.0.RDB1.conv1x1.weight"),),
    ),
    Layout(
        "Real-ESRGAN upscaler",
        FileType.UPSCALER,
        ("conv_first.weight", "(body.0.rdb1|RRDB_trunk.0.RDB1).conv1.weight"),
    ),
    Layout(
        "compact ESRGAN upscaler",
        FileType.UPSCALER,
        ("body.0.weight", "body.1.weight", "body.2.weight"),
        without=("conv_first.weight",),
    ),
    Layout(
        "transformer upscaler (SwinIR, HAT, DAT)",
        FileType.UPSCALER,
        ("conv_first.weight", "layers.0.*", "(conv_last|upsample.0|conv_before_upsample.0).weight"),
        variants=(Sign("transformer", "layers.0.*"),),
    ),
)
_XL_EMBEDDING: tuple[Sign[Families], ...] = (
    Sign((_SD3,), "t5xxl", -1, 4096),
    Sign((_XL,), "clip_g", -1, 1280),
)


_FLUX_EMBEDDING: tuple[Sign[Families], ...] = (Sign((_FLUX,), "clip_l", -1, 768),)
_CLIP_L_EMBEDDING: tuple[Sign[Families], ...] = (Sign((_SD1, _XL), "clip_l", -1, 768),)


def _embedding(name: str, *keys: str, signs: tuple[Sign[Families], ...]) -> Layout:
    return Layout(name, FileType.EMBEDDING, keys, family_signs=signs)


def _plain_embedding(name: str, key: str, num_tensors: int | None = None) -> Layout:
    """Vectors for the one text encoder of Stable Diffusion 1 or 2."""
    signs: tuple[Sign[Families], ...] = (
        Sign((_SD1,), key, -1, 768),
        Sign((_SD2,), key, -1, 1024),
    )
    return Layout(name, FileType.EMBEDDING, (key,), num_tensors=num_tensors, family_signs=signs)


_EMBEDDINGS = (
    _embedding("SD3 embedding", "clip_l", "clip_g", "t5xxl", signs=_XL_EMBEDDING),
    _embedding("XL embedding", "clip_l", "clip_g", signs=_XL_EMBEDDING),
    _embedding("XL embedding, clip_g alone", "clip_g", signs=_XL_EMBEDDING),
    _embedding("Flux embedding", "clip_l", "t5xxl", signs=_FLUX_EMBEDDING),
    _embedding("embedding, clip_l alone", "clip_l", signs=_CLIP_L_EMBEDDING),
    _plain_embedding("embedding of kohya's and A1111's", "emb_params"),
    _plain_embedding("embedding as in A1111's .pt", "string_to_param.*"),
    _plain_embedding("embedding of diffusers: one tensor, named by its token", "*", 1),
)

# The first that matches is it: what has further names than another comes before it.
LAYOUTS = (
    *_IP_ADAPTERS,
    *OTHERS,
    *_ADAPTERS,
    *CONTROLNETS,
    *MODELS,
    *_FILES,
    *_EMBEDDINGS,
)
