"""The table of layouts: by which names and shapes a file is known. A new layout is a row.

Sources: diffusers' `single_file_utils.py` and `lora_conversion_utils.py`, kohya's sd-scripts,
LyCORIS, spandrel, and the headers of published files. Patterns are those of `Names`.
"""

from collections.abc import Iterator

from serve_app.models.inspect.inspection import Family, FileType
from serve_app.models.inspect.layout import Families, Layout, Sign

__all__ = ["DOWN", "LAYOUTS"]

_SD1, _SD2, _XL, _REFINER, _SD3, _FLUX = Family


def _other(name: str, *keys: str, sign: Sign[bool] | None = None) -> Layout:
    """What is known by name and served by nothing here."""
    return Layout(name, FileType.OTHER, keys, sign=sign)


# -- Checkpoints, UNets, transformers, ControlNets ------------------------------------------------

_LDM = "model.diffusion_model."
_ANY = "(model.diffusion_model.|diffusion_model.)?"  # of a denoiser alone
_UNET = "(model.diffusion_model.|diffusion_model.|control_model.|unet.)?"
_REST = "(first_stage_model|cond_stage_model|conditioner|vae|text_encoders).*"


def _by_text_width() -> Iterator[Sign[Families]]:
    """By the width of the text that the denoiser attends to."""
    first = f"{_UNET}(input_blocks.1.1|down_blocks.0.attentions.0).transformer_blocks.0"
    second = f"{_UNET}(input_blocks.4.1|down_blocks.1.attentions.0).transformer_blocks.0"
    yield Sign((_SD1,), f"{first}.attn2.to_k.weight", -1, 768)
    yield Sign((_SD2,), f"{first}.attn2.to_k.weight", -1, 1024)
    yield Sign((_XL,), f"{second}.attn2.to_k.weight", -1, 2048)
    yield Sign((_REFINER,), f"{second}.attn2.to_k.weight", -1, 1280)
    yield Sign((_XL,), f"{_UNET}(label_emb.0.0|add_embedding.linear_1).weight", -1, 2816)
    yield Sign((_REFINER,), f"{_UNET}(label_emb.0.0|add_embedding.linear_1).weight", -1, 2560)


_UNET_FAMILIES: tuple[Sign[Families], ...] = (
    *_by_text_width(),
    # Of other sizes: by the text encoders that are there.
    Sign((_XL,), "(conditioner.embedders.1|text_encoder_2).*"),
    Sign((_REFINER,), "conditioner.embedders.0.model.*"),
    Sign((_SD2,), "cond_stage_model.model.*"),
    Sign((_SD1,), "cond_stage_model.*"),
    Sign((_XL,), f"{_UNET}(label_emb.0.0|add_embedding.linear_1).weight"),
)
_UNET_INPUT = f"{_UNET}(input_blocks.0.0|conv_in).weight"
_UNET_VARIANTS = (
    Sign("inpainting", _UNET_INPUT, 1, 9),
    Sign("pix2pix", _UNET_INPUT, 1, 8),
    Sign("depth", _UNET_INPUT, 1, 5),
)
_UNET_CHANNELS = (_UNET_INPUT, 1, 1)
_FLUX_INPUT = f"{_ANY}(img_in|x_embedder).weight"
_FLUX_CHANNELS = (_FLUX_INPUT, 1, 4)  # latents come in squares of 2 x 2
_FLUX_VARIANTS = (
    Sign("fill", _FLUX_INPUT, 1, 384),
    Sign("depth or canny", _FLUX_INPUT, 1, 128),
    Sign("dev", f"{_ANY}(guidance_in.in_layer|time_text_embed.guidance_embedder.linear_1).weight"),
    Sign("schnell", f"{_ANY}(time_in.in_layer|time_text_embed.timestep_embedder.linear_1).weight"),
)
_SD3_CHANNELS = (f"{_ANY}(x_embedder|pos_embed).proj.weight", 1, 1)
_SD3_VARIANTS = (
    Sign("3.5 large", f"{_ANY}(joint_blocks.37.x_block.mlp.fc1|transformer_blocks.37.*).weight"),
    Sign(
        "3.5 medium",
        f"{_ANY}(joint_blocks.0.x_block.attn2.qkv|transformer_blocks.0.attn2.to_q).weight",
    ),
    Sign("3 medium", f"{_ANY}(joint_blocks|transformer_blocks).23.*"),
)


def _unet(name: str, type_: FileType, *keys: str, without: tuple[str, ...] = ()) -> Layout:
    return Layout(
        name,
        type_,
        keys,
        without=without,
        family_signs=_UNET_FAMILIES,
        variants=_UNET_VARIANTS,
        channels=_UNET_CHANNELS,
    )


def _flux(name: str, type_: FileType, *keys: str) -> Layout:
    return Layout(
        name,
        type_,
        keys,
        families=(_FLUX,),
        variants=_FLUX_VARIANTS,
        channels=_FLUX_CHANNELS,
    )


def _sd3(name: str, type_: FileType, *keys: str) -> Layout:
    return Layout(
        name, type_, keys, families=(_SD3,), variants=_SD3_VARIANTS, channels=_SD3_CHANNELS
    )


_MODELS = (
    _unet(
        "LDM checkpoint",
        FileType.CHECKPOINT,
        f"{_LDM}input_blocks.0.0.weight",
        f"{_LDM}out.2.weight",
        _REST,
    ),
    _flux(
        "Flux checkpoint",
        FileType.CHECKPOINT,
        f"{_LDM}double_blocks.0.img_attn.qkv.weight",
        _REST,
    ),
    _sd3(
        "SD3 checkpoint",
        FileType.CHECKPOINT,
        f"{_LDM}joint_blocks.0.x_block.attn.qkv.weight",
        _REST,
    ),
    _unet(
        "diffusers checkpoint in one file",
        FileType.CHECKPOINT,
        "unet.conv_in.weight",
        "unet.up_blocks.*",
        "(vae|text_encoder).*",
    ),
    _unet("LDM UNet", FileType.UNET, f"{_ANY}input_blocks.0.0.weight", f"{_ANY}out.2.weight"),
    _unet(
        "diffusers UNet",
        FileType.UNET,
        "(unet.)?conv_in.weight",
        "(unet.)?time_embedding.linear_1.weight",
        "(unet.)?down_blocks.*",
        "(unet.)?up_blocks.*",
    ),
    _flux("Flux transformer", FileType.TRANSFORMER, f"{_ANY}double_blocks.0.img_attn.qkv.weight"),
    _flux(
        "diffusers Flux transformer",
        FileType.TRANSFORMER,
        "transformer_blocks.0.attn.add_q_proj.weight",
        "single_transformer_blocks.0.proj_mlp.weight",
        "x_embedder.weight",
    ),
    _sd3("SD3 transformer", FileType.TRANSFORMER, f"{_ANY}joint_blocks.0.x_block.attn.qkv.weight"),
    _sd3(
        "diffusers SD3 transformer",
        FileType.TRANSFORMER,
        "transformer_blocks.0.attn.add_q_proj.weight",
        "pos_embed.proj.weight",
        "context_embedder.weight",
    ),
)
_UNION = (Sign("union", "(task_embedding|control_add_embedding.linear_1.weight)"),)
_CONTROLNETS = (
    Layout(
        "LDM ControlNet",
        FileType.CONTROLNET,
        ("(control_model.)?input_hint_block.0.weight", "(control_model.)?zero_convs.0.0.weight"),
        family_signs=_UNET_FAMILIES,
    ),
    Layout(
        "diffusers ControlNet",
        FileType.CONTROLNET,
        ("controlnet_cond_embedding.conv_in.weight", "controlnet_down_blocks.0.weight"),
        family_signs=_UNET_FAMILIES,
        variants=_UNION,
    ),
    Layout(
        "diffusers Flux ControlNet",
        FileType.CONTROLNET,
        ("controlnet_x_embedder.weight", "controlnet_blocks.0.weight"),
        families=(_FLUX,),
    ),
    Layout(
        "diffusers SD3 ControlNet",
        FileType.CONTROLNET,
        ("pos_embed_input.proj.weight", "controlnet_blocks.0.weight"),
        families=(_SD3,),
    ),
)

# -- What can be told by its name, and is not served ----------------------------------------------

_OTHERS = (
    _other("a ControlNet of the form Control-LoRA", "lora_controlnet"),
    _other("a ControlNet-LLLite", "lllite_*"),
    _other("a T2I adapter", "(adapter.)?body.0.(block1|resnets.0.block1).weight"),
    _other("an AnimateDiff motion module", "*motion_modules.#.*"),
    _other("an (IA)3 adapter", "*.on_input"),
    _other("an OFT adapter", "*.oft_(blocks|diag|R.weight)"),
    _other("a GLoRA", "*.a1.weight", "*.b1.weight"),
    _other("Qwen-Image weights", "*transformer_blocks[._]#[._](img_mlp|img_mod)*"),
    _other("FLUX.2 weights", f"{_ANY}(single_stream_modulation.lin|double_stream_mod*).weight"),
    _other("a Chroma model", f"{_ANY}distilled_guidance_layer.*"),
    _other("a HunyuanVideo model", f"{_ANY}txt_in.individual_token_refiner.blocks.0.*"),
    _other("an AuraFlow model", f"{_ANY}double_layers.0.attn.w2q.weight"),
    _other("a Lumina 2 model", f"{_ANY}cap_embedder.0.weight"),
    _other("an LTX-Video model", f"{_ANY}patchify_proj.weight"),
    _other("a Wan model", f"{_ANY}head.modulation"),
    _other("a HiDream model", f"{_ANY}double_stream_blocks.0.block.*"),
    _other("a Sana model", "blocks.0.cross_attn.q_linear.weight"),
    _other("a Stable Cascade model", "clip_txt_mapper.weight"),
    _other("a Stable Cascade model", f"{_ANY}down_blocks.#.#.channelwise.0.weight"),
    _other("a Stable Video Diffusion model", f"{_ANY}input_blocks.1.0.time_stack.*"),
    _other("a Stable Diffusion unCLIP model", "(noise_augmentor|embedder.model.visual).*"),
    _other(
        "a Stable Diffusion x4 upscaler",
        f"{_ANY}out.2.weight",
        sign=Sign(True, f"{_ANY}input_blocks.0.0.weight", 1, 7),
    ),
    _other("a safety checker", "(concept_embeds|special_care_embeds)"),
    Layout(
        "a CLIP image encoder",
        FileType.OTHER,
        ("(vision_model.)?embeddings.patch_embedding.weight",),
        without=(
            "(text_model.)?embeddings.token_embedding.weight",
            f"{_ANY}input_blocks.0.0.weight",
        ),
    ),
    _other("a TAESD preview decoder", "(decoder|encoder).layers.0.weight"),
    _other(
        "a TAESD preview decoder",
        "(taesd_)?(decoder.)?1.weight",
        "(taesd_)?(decoder.)?3.conv.0.weight",
    ),
)

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
    _other("LyCORIS full weights", "*.diff"),
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
            Sign((_SD1,), _IP_KEYS, -1, 768),
            Sign((_SD2,), _IP_KEYS, -1, 1024),
            Sign((_XL,), _IP_KEYS, -1, 2048),
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
    Sign(families, "*token_embedding.weight", -1, width)
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
    *_OTHERS,
    *_ADAPTERS,
    *_CONTROLNETS,
    *_MODELS,
    *_FILES,
    *_EMBEDDINGS,
)
