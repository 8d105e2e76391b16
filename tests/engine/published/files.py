"""The tensors of small models under the names that published files have."""

import re
from collections.abc import Callable, Iterable, Mapping

import torch
from diffusers import DiffusionPipeline
from torch import nn

from serve_app.testing.ldm_names import original_unet, original_vae

__all__ = ["Tensors", "bare", "checkpoint", "ema_of", "open_clip", "rounded", "t5", "transformer"]
__all__ += ["under", "unet", "vae"]

Tensors = dict[str, torch.Tensor]


def under(beginning: str, tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """Put a beginning before all names."""
    return {beginning + name: tensor for name, tensor in tensors.items()}


def bare(module: nn.Module) -> Tensors:
    """Name tensors as diffusers and transformers do, CLIP's without `text_model.`"""
    return {n.removeprefix("text_model."): t for n, t in module.state_dict().items()}


def clip(module: nn.Module, beginning: str = "text_model.") -> Tensors:
    """Name a text encoder's tensors as transformers did before version 5."""
    return {
        name if "projection" in name else beginning + name: tensor
        for name, tensor in bare(module).items()
    }


def t5(module: nn.Module, words: str = "shared.weight") -> Tensors:
    """Name T5's tensors; its words are there once, under either name."""
    named = {name: tensor for name, tensor in module.state_dict().items() if "embed_t" not in name}
    named[words] = named.pop("shared.weight")
    return named


def unet(module: nn.Module) -> Tensors:
    """Name a UNet's tensors as its makers did."""
    ups, layers = module.config.up_block_types, module.config.layers_per_block
    return {
        original_unet(name, layers, lambda block: ups[block].startswith("Cross")): tensor
        for name, tensor in module.state_dict().items()
    }


def vae(module: nn.Module) -> Tensors:
    """Name a VAE's tensors as its makers did; matrices are convolutions of one pixel there."""
    return {
        original_vae(name): tensor[:, :, None, None]
        if "attentions" in name and tensor.ndim == 2
        else tensor
        for name, tensor in module.state_dict().items()
    }


_OPEN_CLIP = {
    r"embeddings\.token_embedding\.weight": "token_embedding.weight",
    r"embeddings\.position_embedding\.weight": "positional_embedding",
    r"final_layer_norm": "ln_final",
    r"encoder\.layers\.(\d+)": r"transformer.resblocks.\1",
    r"self_attn\.out_proj": "attn.out_proj",
    r"layer_norm(\d)": r"ln_\1",
    r"mlp\.fc1": "mlp.c_fc",
    r"mlp\.fc2": "mlp.c_proj",
}


def open_clip(module: nn.Module) -> Tensors:
    """Name a text encoder's tensors as open_clip does, with queries, keys and values in one."""
    named = _joined(
        {_substituted(name, _OPEN_CLIP): tensor for name, tensor in bare(module).items()},
        {r"(.*)\.self_attn\.([qkv])_proj\.(weight|bias)": (r"\1.attn.in_proj_\3", "qkv")},
    )
    width = len(named["ln_final.weight"])
    projection = named.pop("text_projection.weight", torch.ones(width, width))
    return named | {"text_projection": projection.T.contiguous(), "logit_scale": torch.ones(())}


def _substituted(name: str, rules: Mapping[str, str]) -> str:
    for pattern, new in rules.items():
        name = re.sub(pattern, new, name)
    return name


def _joined(tensors: Tensors, rules: Mapping[str, tuple[str, Iterable[str]]]) -> Tensors:
    """Put tensors together whose names match, in the order of the second group's words."""
    parts: dict[str, dict[str, torch.Tensor]] = {}
    order: dict[str, Iterable[str]] = {}
    rest: Tensors = {}
    for name, tensor in tensors.items():
        for pattern, (new, words) in rules.items():
            if match := re.fullmatch(pattern, name):
                parts.setdefault(match.expand(new), {})[match[2]] = tensor
                order[match.expand(new)] = words
                break
        else:
            rest[name] = tensor
    joined = {name: torch.cat([own[word] for word in order[name]]) for name, own in parts.items()}
    return rest | joined


_FLUX = {
    r"time_text_embed\.timestep_embedder\.linear_1": "time_in.in_layer",
    r"time_text_embed\.timestep_embedder\.linear_2": "time_in.out_layer",
    r"time_text_embed\.text_embedder\.linear_1": "vector_in.in_layer",
    r"time_text_embed\.text_embedder\.linear_2": "vector_in.out_layer",
    r"time_text_embed\.guidance_embedder\.linear_1": "guidance_in.in_layer",
    r"time_text_embed\.guidance_embedder\.linear_2": "guidance_in.out_layer",
    r"^context_embedder": "txt_in",
    r"^x_embedder": "img_in",
    r"^proj_out": "final_layer.linear",
    r"^norm_out\.linear": "final_layer.adaLN_modulation.1",
    r"^single_transformer_blocks\.(\d+)\.norm\.linear": r"single_blocks.\1.modulation.lin",
    r"^single_transformer_blocks\.(\d+)\.proj_out": r"single_blocks.\1.linear2",
    r"^single_transformer_blocks\.(\d+)\.attn\.norm_q.weight": (
        r"single_blocks.\1.norm.query_norm.scale"
    ),
    r"^single_transformer_blocks\.(\d+)\.attn\.norm_k.weight": (
        r"single_blocks.\1.norm.key_norm.scale"
    ),
    r"^transformer_blocks\.(\d+)\.norm1\.linear": r"double_blocks.\1.img_mod.lin",
    r"^transformer_blocks\.(\d+)\.norm1_context\.linear": r"double_blocks.\1.txt_mod.lin",
    r"^transformer_blocks\.(\d+)\.attn\.norm_q\.weight": (
        r"double_blocks.\1.img_attn.norm.query_norm.scale"
    ),
    r"^transformer_blocks\.(\d+)\.attn\.norm_k\.weight": (
        r"double_blocks.\1.img_attn.norm.key_norm.scale"
    ),
    r"^transformer_blocks\.(\d+)\.attn\.norm_added_q\.weight": (
        r"double_blocks.\1.txt_attn.norm.query_norm.scale"
    ),
    r"^transformer_blocks\.(\d+)\.attn\.norm_added_k\.weight": (
        r"double_blocks.\1.txt_attn.norm.key_norm.scale"
    ),
    r"^transformer_blocks\.(\d+)\.attn\.to_out\.0": r"double_blocks.\1.img_attn.proj",
    r"^transformer_blocks\.(\d+)\.attn\.to_add_out": r"double_blocks.\1.txt_attn.proj",
    r"^transformer_blocks\.(\d+)\.ff\.net\.0\.proj": r"double_blocks.\1.img_mlp.0",
    r"^transformer_blocks\.(\d+)\.ff\.net\.2": r"double_blocks.\1.img_mlp.2",
    r"^transformer_blocks\.(\d+)\.ff_context\.net\.0\.proj": r"double_blocks.\1.txt_mlp.0",
    r"^transformer_blocks\.(\d+)\.ff_context\.net\.2": r"double_blocks.\1.txt_mlp.2",
}
_OWN, _ADDED = ("to_q", "to_k", "to_v"), ("add_q_proj", "add_k_proj", "add_v_proj")
_OWN_WORD, _ADDED_WORD = r"(to_[qkv])", r"(add_[qkv]_proj)"
_FLUX_JOINED = {
    rf"transformer_blocks\.(\d+)\.attn\.{_OWN_WORD}\.(\w+)": (
        r"double_blocks.\1.img_attn.qkv.\3", _OWN
    ),
    rf"transformer_blocks\.(\d+)\.attn\.{_ADDED_WORD}\.(\w+)": (
        r"double_blocks.\1.txt_attn.qkv.\3", _ADDED
    ),
    r"single_transformer_blocks\.(\d+)\.(attn\.to_[qkv]|proj_mlp)\.(\w+)": (
        r"single_blocks.\1.linear1.\3", ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
    ),
}  # fmt: skip
_SD3 = {
    r"^pos_embed\.pos_embed": "pos_embed",
    r"^pos_embed\.proj": "x_embedder.proj",
    r"time_text_embed\.timestep_embedder\.linear_1": "t_embedder.mlp.0",
    r"time_text_embed\.timestep_embedder\.linear_2": "t_embedder.mlp.2",
    r"time_text_embed\.text_embedder\.linear_1": "y_embedder.mlp.0",
    r"time_text_embed\.text_embedder\.linear_2": "y_embedder.mlp.2",
    r"^proj_out": "final_layer.linear",
    r"^norm_out\.linear": "final_layer.adaLN_modulation.1",
    r"^transformer_blocks\.(\d+)\.(attn2?)\.to_out\.0": r"joint_blocks.\1.x_block.\2.proj",
    r"^transformer_blocks\.(\d+)\.attn\.to_add_out": r"joint_blocks.\1.context_block.attn.proj",
    r"^transformer_blocks\.(\d+)\.(attn2?)\.norm_([qk])\.": r"joint_blocks.\1.x_block.\2.ln_\3.",
    r"^transformer_blocks\.(\d+)\.attn\.norm_added_([qk])\.": (
        r"joint_blocks.\1.context_block.attn.ln_\2."
    ),
    r"^transformer_blocks\.(\d+)\.norm1\.linear": r"joint_blocks.\1.x_block.adaLN_modulation.1",
    r"^transformer_blocks\.(\d+)\.norm1_context\.linear": (
        r"joint_blocks.\1.context_block.adaLN_modulation.1"
    ),
    r"^transformer_blocks\.(\d+)\.ff\.net\.0\.proj": r"joint_blocks.\1.x_block.mlp.fc1",
    r"^transformer_blocks\.(\d+)\.ff\.net\.2": r"joint_blocks.\1.x_block.mlp.fc2",
    r"^transformer_blocks\.(\d+)\.ff_context\.net\.0\.proj": (
        r"joint_blocks.\1.context_block.mlp.fc1"
    ),
    r"^transformer_blocks\.(\d+)\.ff_context\.net\.2": r"joint_blocks.\1.context_block.mlp.fc2",
}
_SD3_JOINED = {
    rf"transformer_blocks\.(\d+)\.attn\.{_OWN_WORD}\.(\w+)": (
        r"joint_blocks.\1.x_block.attn.qkv.\3", _OWN
    ),
    rf"transformer_blocks\.(\d+)\.attn2\.{_OWN_WORD}\.(\w+)": (
        r"joint_blocks.\1.x_block.attn2.qkv.\3", _OWN
    ),
    rf"transformer_blocks\.(\d+)\.attn\.{_ADDED_WORD}\.(\w+)": (
        r"joint_blocks.\1.context_block.attn.qkv.\3", _ADDED
    ),
}  # fmt: skip


def transformer(module: nn.Module) -> Tensors:
    """Name a transformer's tensors as its makers did, who have shift before scale at the end."""
    is_flux = "Flux" in type(module).__name__
    rules, joined = (_FLUX, _FLUX_JOINED) if is_flux else (_SD3, _SD3_JOINED)
    ends = ["norm_out.linear"]
    if not is_flux:  # the last block does nothing to the text but norm it
        ends.append(f"transformer_blocks.{module.config.num_layers - 1}.norm1_context.linear")
    tensors = {
        name: torch.cat([*reversed(tensor.chunk(2))]) if name.rpartition(".")[0] in ends else tensor
        for name, tensor in module.state_dict().items()
    }
    return {_substituted(name, rules): tensor for name, tensor in _joined(tensors, joined).items()}


def checkpoint(pipeline: DiffusionPipeline) -> Tensors:
    """Pack a pipeline as the makers of its family did, SD3 and FLUX.1 as people do."""
    kind = type(pipeline).__name__.removeprefix("StableDiffusion").removesuffix("Pipeline")
    vae_tensors = vae(pipeline.vae)
    if kind in ("3", "Flux"):
        first, second = pipeline.text_encoder, pipeline.text_encoder_2
        texts = {"clip_l": clip(first)}
        if kind == "3":
            texts |= {"clip_g": clip(second), "t5xxl": t5(pipeline.text_encoder_3)}
        else:
            texts |= {"t5xxl": t5(second)}
        packed = under("model.diffusion_model.", transformer(pipeline.transformer))
        packed |= under("vae.", vae_tensors)
        for name, own in texts.items():
            packed |= under(f"text_encoders.{name}.transformer.", own)
        return packed
    packed = under("model.diffusion_model.", unet(pipeline.unet))
    packed |= under("first_stage_model.", vae_tensors) | _SCHEDULE
    if kind == "XL":
        packed |= under("conditioner.embedders.0.transformer.", clip(pipeline.text_encoder))
        return packed | under("conditioner.embedders.1.model.", open_clip(pipeline.text_encoder_2))
    if pipeline.unet.config.cross_attention_dim == 1024:
        return packed | under("cond_stage_model.model.", open_clip(pipeline.text_encoder))
    ids = {"cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)}
    return packed | ids | under("cond_stage_model.transformer.", clip(pipeline.text_encoder))


_SCHEDULE = {"alphas_cumprod": torch.ones(1000), "betas": torch.ones(1000)}


def ema_of(module: nn.Module) -> Tensors:
    """Name other weights as copies of a UNet's, as LDM does: without dots."""
    names = {name: "diffusion_model" + name.replace(".", "") for name in unet(module)}
    return under("model_ema.", {short: torch.full((2,), 9.0) for short in names.values()})


def rounded(dtype: torch.dtype) -> Callable[[Tensors], Tensors]:
    """Return what gives floats fewer bits."""
    return lambda tensors: {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }
