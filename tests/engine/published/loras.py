"""Cases: LoRAs and their like."""

from collections.abc import Callable, Mapping

import torch
from diffusers import DiffusionPipeline

from serve_app.testing.ldm_names import original_unet
from tests.engine.published.files import Tensors, under
from tests.engine.published.forms import (
    FULL,
    KOHYA,
    LOHA,
    OLD,
    PEFT,
    PROCESSORS,
    Form,
    as_dora,
    lokr,
)
from tests.engine.published.workshop import Case, Served, Workshop
from tests.engine.weaving import changed

__all__ = ["LORAS"]

Layer = tuple[str, str]  # of a component
_ARITHMETIC = "its arithmetic, in the weights of stock diffusers"
_ATTENTION = "attentions.0.transformer_blocks.0"
_CLIP = ("encoder.layers.0.self_attn.q_proj", "encoder.layers.1.mlp.fc1")
_SD1 = {
    "unet": (
        f"down_blocks.0.{_ATTENTION}.attn1.to_q",
        f"down_blocks.0.{_ATTENTION}.attn2.to_k",
        f"up_blocks.1.{_ATTENTION}.ff.net.2",
    )
}
_SD1_CONV = {
    "unet": ("mid_block.resnets.0.conv1", "down_blocks.0.attentions.0.proj_in", *_SD1["unet"])
}
_XL = {
    "unet": (
        f"down_blocks.1.{_ATTENTION}.attn1.to_q",
        f"down_blocks.1.{_ATTENTION}.attn2.to_k",
        "up_blocks.0.attentions.1.transformer_blocks.1.ff.net.2",
    )
}
_TEXT, _TEXT_XL = {"text_encoder": _CLIP}, {"text_encoder": _CLIP, "text_encoder_2": _CLIP}
_FLUX = {
    "transformer": (
        "transformer_blocks.0.attn.to_q",
        "transformer_blocks.0.ff.net.2",
        "single_transformer_blocks.0.attn.to_k",
    )
}
_SD3 = {"transformer": ("transformer_blocks.0.attn.to_q", "transformer_blocks.1.ff.net.2")}


def _name(prefixes: Mapping[str, str], separator: str = "_") -> Callable[[Layer, object], str]:
    return lambda layer, _: prefixes[layer[0]] + layer[1].replace(".", separator) + "."


_KOHYAS = {
    "unet": "lora_unet_",
    "text_encoder": "lora_te_text_model_",
    "transformer": "lora_transformer_",
}
_KOHYAS_XL = _KOHYAS | {
    "text_encoder": "lora_te1_text_model_",
    "text_encoder_2": "lora_te2_text_model_",
}
_LYCORIS = dict.fromkeys(("unet", "transformer"), "lycoris_")
_DOTTED = {name: f"{name}." for name in ("unet", "transformer", "text_encoder", "text_encoder_2")}
_SAVED = {"unet": "base_model.model.", "transformer": "base_model.model."}
_BARE = {"unet": "", "transformer": ""}


def _makers(layer: Layer, pipeline: DiffusionPipeline) -> str:
    """kohya's name in the way of Stable Diffusion's makers."""
    ups, layers = pipeline.unet.config.up_block_types, pipeline.unet.config.layers_per_block
    weight = f"{layer[1]}.weight"
    name = original_unet(weight, layers, lambda block: ups[block].startswith("Cross"))
    return "lora_unet_" + name.removesuffix(".weight").replace(".", "_") + "."


def _processor(layer: Layer, _: object) -> str:
    block, _, name = layer[1].removesuffix(".0").rpartition(".")
    return f"unet.{block}.processor.{name}_lora."


def _lora(
    family: str,
    layers: Mapping[str, tuple[str, ...]],
    form: Form,
    name: Callable[[Layer, DiffusionPipeline], str],
) -> Callable[[Workshop], Served]:
    """An adapter of a form, under names; stock has what it says in its weights."""

    def make(shop: Workshop) -> Served:
        torch.manual_seed(11)
        pipeline = shop.models.stock(family)
        tensors: Tensors = {}
        changes = {}
        for component, names in layers.items():
            for layer in names:
                module = getattr(pipeline, component)
                full = layer if _has(module, layer) else f"text_model.{layer}"
                own = form.make(module.get_submodule(full).weight.shape)
                tensors |= under(name((component, layer), pipeline), own)
                changes[component, full] = lambda weight, own=own: form.dense(own, weight)
        stock = changed(pipeline, changes)
        return Served(shop.write(tensors), stock, add_on="lora", model=shop.models.folder(family))

    return make


def _has(module: torch.nn.Module, layer: str) -> bool:
    return layer in dict(module.named_modules())


def _flux_fused(prefix: str, separator: str, form: Form) -> Callable[[Workshop], Served]:
    """An adapter in the names of FLUX.1's makers, who have queries, keys and values in one."""

    def make(shop: Workshop) -> Served:
        torch.manual_seed(11)
        pipeline = shop.models.stock("flux-dev")
        width = pipeline.transformer.inner_dim
        own = form.make(torch.Size((3 * width, width)))
        mlp = form.make(torch.Size((width, 4 * width)))
        blocks = f"double_blocks{separator}0{separator}"
        tensors = under(f"{prefix}{blocks}img_attn{separator}qkv.", own)
        tensors |= under(f"{prefix}{blocks}img_mlp{separator}2.", mlp)
        changes = {}
        for number, name in enumerate(("to_q", "to_k", "to_v")):

            def change(weight: torch.Tensor, number: int = number) -> torch.Tensor:
                whole = form.dense(own, torch.zeros(3 * width, width))
                return weight + whole[number * width : (number + 1) * width]

            changes["transformer", f"transformer_blocks.0.attn.{name}"] = change
        changes["transformer", "transformer_blocks.0.ff.net.2"] = lambda weight: form.dense(
            mlp, weight
        )
        return Served(
            shop.write(tensors),
            changed(pipeline, changes),
            add_on="lora",
            model=shop.models.folder("flux-dev"),
        )

    return make


def _sd3_fused(prefix: str, separator: str, form: Form) -> Callable[[Workshop], Served]:
    """An adapter in the names of Stable Diffusion 3's makers; queries, keys and values in one."""

    def make(shop: Workshop) -> Served:
        torch.manual_seed(11)
        pipeline = shop.models.stock("sd3-medium")
        tensors: Tensors = {}
        changes = {}
        last = pipeline.transformer.config.num_layers - 1
        layers = {
            "x_block.attn.qkv": [f"attn.to_{one}" for one in "qkv"],
            "context_block.attn.qkv": [f"attn.add_{one}_proj" for one in "qkv"],
            "x_block.mlp.fc2": ["ff.net.2"],
            "x_block.adaLN_modulation.1": ["norm1.linear"],
        }
        named = {f"joint_blocks.0.{name}": [f"transformer_blocks.0.{one}" for one in ours]
                 for name, ours in layers.items()}  # fmt: skip
        end = f"joint_blocks.{last}.context_block.adaLN_modulation.1"
        turned = {end: f"transformer_blocks.{last}.norm1_context.linear"}
        turned |= {"final_layer.adaLN_modulation.1": "norm_out.linear"}
        for name, ours in (named | {name: [one] for name, one in turned.items()}).items():
            weights = [pipeline.transformer.get_submodule(one).weight for one in ours]
            own = form.make(torch.cat(weights).shape)
            tensors |= under(f"{prefix}{name.replace('.', separator)}.", own)
            whole = form.dense(own, torch.zeros_like(torch.cat(weights)))
            if name in turned:  # diffusers has the scale first
                whole = torch.cat([*reversed(whole.chunk(2))])
            for one, part in zip(ours, whole.chunk(len(ours)), strict=True):
                changes["transformer", one] = lambda weight, part=part: weight + part
        model = shop.models.folder("sd3-medium")
        return Served(shop.write(tensors), changed(pipeline, changes), add_on="lora", model=model)

    return make


def _loras() -> dict[str, Case]:
    dora = as_dora(KOHYA, "dora_scale")
    new_dora = as_dora(PEFT, "lora_magnitude_vector")
    rows: dict[str, tuple[str, Callable[[Workshop], Served]]] = {
        "lora-sd1-kohya": ("LoRA, kohya's names", _lora("sd1", _SD1, KOHYA, _name(_KOHYAS))),
        "lora-sd1-makers": (
            "LoRA, kohya's names in the makers' way", _lora("sd1", _SD1, KOHYA, _makers),
        ),
        "lora-sd1-text": (
            "LoRA, text encoder alone", _lora("sd1", _TEXT, KOHYA, _name(_KOHYAS)),
        ),
        "lora-sd1-peft": (
            "LoRA, peft's names", _lora("sd1", _SD1 | _TEXT, PEFT, _name(_DOTTED, ".")),
        ),
        "lora-sd1-peft-bare": (
            "LoRA, peft's names without `unet.`", _lora("sd1", _SD1, PEFT, _name(_BARE, ".")),
        ),
        "lora-sd1-peft-saved": (
            "LoRA, as peft saves it", _lora("sd1", _SD1, PEFT, _name(_SAVED, ".")),
        ),
        "lora-sd1-diffusers": (
            "LoRA, diffusers' older names", _lora("sd1", _SD1, OLD, _name(_DOTTED, ".")),
        ),
        "lora-sd1-processors": (
            "LoRA, diffusers' first names",
            _lora("sd1", {"unet": _SD1["unet"][:2]}, PROCESSORS, _processor),
        ),
        "locon-sd1": ("LoCon", _lora("sd1", _SD1_CONV, KOHYA, _name(_KOHYAS))),
        "dora-sd1-kohya": ("DoRA, kohya's names", _lora("sd1", _SD1_CONV, dora, _name(_KOHYAS))),
        "dora-sd1-peft": (
            "DoRA, peft's names", _lora("sd1", _SD1, new_dora, _name(_DOTTED, ".")),
        ),
        "loha-sd1": ("LoHa", _lora("sd1", _SD1_CONV, LOHA, _name(_KOHYAS))),
        "lokr-sd1": (
            "LoKr of whole matrices", _lora("sd1", _SD1_CONV, lokr(None), _name(_KOHYAS)),
        ),
        "lokr-sd1-ranked": ("LoKr of a rank", _lora("sd1", _SD1_CONV, lokr(2), _name(_KOHYAS))),
        "lora-sd2-kohya": (
            "LoRA of Stable Diffusion 2", _lora("sd2", _SD1, KOHYA, _name(_KOHYAS)),
        ),
        "lora-xl-kohya": (
            "LoRA of Stable Diffusion XL, kohya's names in the makers' way",
            _lora("sdxl", _XL, KOHYA, _makers),
        ),
        "lora-xl-kohya-diffusers": (
            "LoRA of Stable Diffusion XL, kohya's names in diffusers' way",
            _lora("sdxl", _XL, KOHYA, _name(_KOHYAS_XL)),
        ),
        "lora-xl-text": (
            "LoRA of Stable Diffusion XL, text encoders alone",
            _lora("sdxl", _TEXT_XL, KOHYA, _name(_KOHYAS_XL)),
        ),
        "lora-xl-peft": (
            "LoRA of Stable Diffusion XL, peft's names",
            _lora("sdxl", _XL | _TEXT_XL, PEFT, _name(_DOTTED, ".")),
        ),
        "dora-xl-peft": (
            "DoRA of Stable Diffusion XL", _lora("sdxl", _XL, new_dora, _name(_DOTTED, ".")),
        ),
        "loha-xl": ("LoHa of Stable Diffusion XL", _lora("sdxl", _XL, LOHA, _makers)),
        "lokr-xl": ("LoKr of Stable Diffusion XL", _lora("sdxl", _XL, lokr(2), _makers)),
        "lokr-xl-lycoris": (
            "LoKr of Stable Diffusion XL, LyCORIS' names",
            _lora("sdxl", _XL, lokr(None), _name(_LYCORIS)),
        ),
        "lora-sd3-peft": (
            "LoRA of Stable Diffusion 3", _lora("sd3-medium", _SD3, PEFT, _name(_DOTTED, ".")),
        ),
        "lora-flux-peft": (
            "LoRA of FLUX.1, peft's names", _lora("flux-dev", _FLUX, PEFT, _name(_DOTTED, ".")),
        ),
        "lora-flux-kohya": (
            "LoRA of FLUX.1, kohya's names", _flux_fused("lora_unet_", "_", KOHYA),
        ),
        "lora-flux-comfy": (
            "LoRA of FLUX.1, ComfyUI's names", _flux_fused("diffusion_model.", ".", PEFT),
        ),
        "loha-flux": ("LoHa of FLUX.1, kohya's names", _flux_fused("lora_unet_", "_", LOHA)),
        "lokr-flux-lycoris": (
            "LoKr of FLUX.1, LyCORIS' names",
            _lora("flux-dev", _FLUX, lokr(None), _name(_LYCORIS)),
        ),
        "lora-flux-onetrainer": (
            "LoRA of FLUX.1, OneTrainer's names",
            _lora("flux-dev", _FLUX, KOHYA, _name(_KOHYAS)),
        ),
        "lora-sd3-kohya": (
            "LoRA of Stable Diffusion 3, kohya's names", _sd3_fused("lora_unet_", "_", KOHYA),
        ),
        "lora-sd3-comfy": (
            "LoRA of Stable Diffusion 3, ComfyUI's names",
            _sd3_fused("diffusion_model.", ".", PEFT),
        ),
        "lora-sd3-kohya-text": (
            "LoRA of Stable Diffusion 3, text encoders alone",
            _lora("sd3-medium", _TEXT_XL, KOHYA, _name(_KOHYAS_XL)),
        ),
        "full-sd1": (
            "LyCORIS full differences", _lora("sd1", _SD1_CONV, FULL, _name(_KOHYAS)),
        ),
        "full-xl-lycoris": (
            "LyCORIS full differences of Stable Diffusion XL, LyCORIS' names",
            _lora("sdxl", _XL, FULL, _name(_LYCORIS)),
        ),
    }  # fmt: skip
    return {key: Case(layout, "`lora`", make, _ARITHMETIC) for key, (layout, make) in rows.items()}


LORAS = _loras()
