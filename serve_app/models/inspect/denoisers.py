"""Rows of the table: checkpoints, UNets and transformers alone, ControlNets."""

from collections.abc import Iterator

from serve_app.models.inspect.inspection import Family, FileType
from serve_app.models.inspect.layout import Families, Layout, Sign

__all__ = ["CONTROLNETS", "MODELS"]

_SD1, _SD2, _XL, _REFINER, _SD3, _FLUX = Family
_LDM = "model.diffusion_model."
_ANY = "(model.diffusion_model.|diffusion_model.)?"  # of a denoiser alone
_UNET = "(model.diffusion_model.|diffusion_model.|control_model.|unet.)?"
_REST = "(first_stage_model|cond_stage_model|conditioner|vae|text_encoders).*"


def _by_text_width() -> Iterator[Sign[Families]]:
    """By the width of the text that the denoiser attends to."""
    first = f"{_UNET}(input_blocks.1.1|down_blocks.0.attentions.0).transformer_blocks.0"
    second = f"{_UNET}(input_blocks.4.1|down_blocks.1.attentions.0).transformer_blocks.0"
    yield Sign((_SD1,), f"{first}.attn2.to_k.weight", 1, 768)
    yield Sign((_SD2,), f"{first}.attn2.to_k.weight", 1, 1024)
    yield Sign((_XL,), f"{second}.attn2.to_k.weight", 1, 2048)
    yield Sign((_REFINER,), f"{second}.attn2.to_k.weight", 1, 1280)
    yield Sign((_XL,), f"{_UNET}(label_emb.0.0|add_embedding.linear_1).weight", 1, 2816)
    yield Sign((_REFINER,), f"{_UNET}(label_emb.0.0|add_embedding.linear_1).weight", 1, 2560)


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


def _unet(name: str, type_: FileType, *keys: str) -> Layout:
    return Layout(
        name,
        type_,
        keys,
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


MODELS = (
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
CONTROLNETS = (
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
