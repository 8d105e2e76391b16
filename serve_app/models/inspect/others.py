"""Rows of the table: what is known by its name, and is nothing that a catalogue can hold."""

from serve_app.models.inspect.inspection import FileType
from serve_app.models.inspect.layout import Layout, Sign

__all__ = ["OTHERS", "other"]

_ANY = "(model.diffusion_model.|diffusion_model.)?"


def other(name: str, *keys: str, sign: Sign[bool] | None = None) -> Layout:
    """What is known by name and served by nothing here."""
    return Layout(name, FileType.OTHER, keys, sign=sign)


OTHERS = (
    other("a ControlNet of the form Control-LoRA", "lora_controlnet"),
    other("a ControlNet-LLLite", "lllite_*"),
    other("a T2I adapter", "(adapter.)?body.0.(block1|resnets.0.block1).weight"),
    other("an AnimateDiff motion module", "*motion_modules.#.*"),
    other("an (IA)3 adapter", "*.on_input"),
    other("an OFT adapter", "*.oft_(blocks|diag|R.weight)"),
    other("a GLoRA", "*.a1.weight", "*.b1.weight"),
    other("Qwen-Image weights", "*transformer_blocks[._]#[._](img_mlp|img_mod)*"),
    other("FLUX.2 weights", f"{_ANY}(single_stream_modulation.lin|double_stream_mod*).weight"),
    other("a Chroma model", f"{_ANY}distilled_guidance_layer.*"),
    other("a HunyuanVideo model", f"{_ANY}txt_in.individual_token_refiner.blocks.0.*"),
    other("an AuraFlow model", f"{_ANY}double_layers.0.attn.w2q.weight"),
    other("a Lumina 2 model", f"{_ANY}cap_embedder.0.weight"),
    other("an LTX-Video model", f"{_ANY}patchify_proj.weight"),
    other("a Wan model", f"{_ANY}head.modulation"),
    other("a HiDream model", f"{_ANY}double_stream_blocks.0.block.*"),
    other("a Sana model", "blocks.0.cross_attn.q_linear.weight"),
    other("a Stable Cascade model", "clip_txt_mapper.weight"),
    other("a Stable Cascade model", f"{_ANY}down_blocks.#.#.channelwise.0.weight"),
    other("a Stable Video Diffusion model", f"{_ANY}input_blocks.1.0.time_stack.*"),
    other("a Stable Diffusion unCLIP model", "(noise_augmentor|embedder.model.visual).*"),
    other(
        "a Stable Diffusion x4 upscaler",
        f"{_ANY}out.2.weight",
        sign=Sign(True, f"{_ANY}input_blocks.0.0.weight", 1, 7),
    ),
    other("a safety checker", "(concept_embeds|special_care_embeds)"),
    Layout(
        "a CLIP image encoder",
        FileType.OTHER,
        ("(vision_model.)?embeddings.patch_embedding.weight",),
        without=(
            "(text_model.)?embeddings.token_embedding.weight",
            f"{_ANY}input_blocks.0.0.weight",
        ),
    ),
    other("a TAESD preview decoder", "(decoder|encoder).layers.0.weight"),
    other(
        "a TAESD preview decoder",
        "(taesd_)?(decoder.)?1.weight",
        "(taesd_)?(decoder.)?3.conv.0.weight",
    ),
)
