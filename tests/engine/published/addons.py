"""Cases: LoRAs and their like, VAEs, embeddings, and what is no add-on."""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from diffusers import DiffusionPipeline

from serve_app.testing.ldm_names import original_unet
from tests import community_files
from tests.engine import upscaler_files
from tests.engine.published import files
from tests.engine.published.files import Tensors, under
from tests.engine.published.workshop import Case, Served, Workshop
from tests.engine.weaving import changed

__all__ = ["ADD_ONS"]

Layer = tuple[str, str]  # of a component
_STRENGTH = 0.8  # of the LoRA that requests name
_STOCK = "stock diffusers with these weights"
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


@dataclass(frozen=True)
class _Form:
    """How an adapter says what is to be added to a layer.

    make: tensors by kind, for a shape of weights. dense: what the weights W become by them.
    """

    make: Callable[[torch.Size], Tensors]
    dense: Callable[[Tensors, torch.Tensor], torch.Tensor]


def _draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape) * 0.5


def _up_down(down: str, up: str, alpha: bool) -> _Form:
    """down (4, in, ...) and up (out, 4, ...); alpha is 2 or, where there is none, the rank."""

    def make(shape: torch.Size) -> Tensors:
        made = {down: _draw(4, *shape[1:]), up: _draw(shape[0], 4, *(1,) * (len(shape) - 2))}
        return made | ({"alpha": torch.tensor(2.0)} if alpha else {})

    def dense(own: Tensors, weight: torch.Tensor) -> torch.Tensor:
        product = own[up].flatten(1) @ own[down].flatten(1)
        return weight + _STRENGTH * (0.5 if alpha else 1) * product.view_as(weight)

    return _Form(make, dense)


def _as_dora(plain: _Form, name: str) -> _Form:
    """m * V / |V|, with the rows of V = W + product; arXiv 2402.09353, equation 5."""

    def make(shape: torch.Size) -> Tensors:
        lengths = 0.5 + torch.rand(shape[0], *(1,) * (len(shape) - 1))
        return plain.make(shape) | {name: lengths if name == "dora_scale" else lengths.flatten()}

    def dense(own: Tensors, weight: torch.Tensor) -> torch.Tensor:
        summed = plain.dense(own, weight)
        rows = summed.flatten(1)
        gain = own[name].flatten() / rows.norm(dim=1)
        return summed * gain.view(-1, *(1,) * (weight.ndim - 1))

    return _Form(make, dense)


def _loha(shape: torch.Size) -> Tensors:
    flat = math.prod(shape[1:])
    own = {f"hada_w{n}_a": 2 * _draw(shape[0], 3) for n in (1, 2)}
    own |= {f"hada_w{n}_b": 2 * _draw(3, flat) for n in (1, 2)}
    return own | {"alpha": torch.tensor(1.5)}


def _loha_dense(own: Tensors, weight: torch.Tensor) -> torch.Tensor:
    one, other = (own[f"hada_w{n}_a"] @ own[f"hada_w{n}_b"] for n in (1, 2))
    return weight + _STRENGTH * 0.5 * (one * other).view_as(weight)


def _lokr(rank: int | None) -> _Form:
    def make(shape: torch.Size) -> Tensors:
        outer, inner = shape[0] // 4, shape[1] // 4
        if rank is None:
            return {"lokr_w1": _draw(4, 4), "lokr_w2": _draw(outer, inner, *shape[2:])}
        flat = inner * math.prod(shape[2:])
        halves = {"lokr_w2_a": _draw(outer, rank), "lokr_w2_b": _draw(rank, flat)}
        return {"lokr_w1": _draw(4, 4), **halves, "alpha": torch.tensor(rank / 2)}

    def dense(own: Tensors, weight: torch.Tensor) -> torch.Tensor:
        second = own["lokr_w2"] if rank is None else own["lokr_w2_a"] @ own["lokr_w2_b"]
        second = second.reshape(weight.shape[0] // 4, weight.shape[1] // 4, *weight.shape[2:])
        rows = [torch.cat([one * second for one in row], 1) for row in own["lokr_w1"]]
        return weight + _STRENGTH * (1 if rank is None else 0.5) * torch.cat(rows)

    return _Form(make, dense)


_KOHYA = _up_down("lora_down.weight", "lora_up.weight", alpha=True)
_PEFT = _up_down("lora_A.weight", "lora_B.weight", alpha=False)
_OLD = _up_down("lora.down.weight", "lora.up.weight", alpha=False)
_PROCESSORS = _up_down("down.weight", "up.weight", alpha=False)
_LOHA = _Form(_loha, _loha_dense)
_FULL = _Form(
    lambda shape: {"diff": _draw(*shape)}, lambda own, weight: weight + _STRENGTH * own["diff"]
)


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
    form: _Form,
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


def _flux_fused(prefix: str, separator: str, form: _Form) -> Callable[[Workshop], Served]:
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


def _sd3_fused(prefix: str, separator: str, form: _Form) -> Callable[[Workshop], Served]:
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


def _vae(
    family: str, name: Callable[[torch.nn.Module], Tensors], beginning: str = ""
) -> Callable[[Workshop], Served]:
    """A VAE with other weights than the model's own."""

    def make(shop: Workshop) -> Served:
        torch.manual_seed(12)
        pipeline = copy.copy(shop.models.stock(family))
        other = type(pipeline.vae).from_config(pipeline.vae.config).eval()
        pipeline.register_modules(vae=other)
        file = shop.write(under(beginning, name(other)))
        return Served(file, pipeline, add_on="vae", model=shop.models.folder(family))

    return make


def _old_vae(module: torch.nn.Module) -> Tensors:
    parts = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors: Tensors = {}
    for name, tensor in module.state_dict().items():
        for new, old in parts.items():
            name = name.replace(f".attentions.0.{new}.", f".attentions.0.{old}.")  # noqa: PLW2901
        tensors[name] = tensor
    return tensors


def _embedding(
    family: str, widths: Mapping[str, int], said: Mapping[str, object] | None = None
) -> Callable[[Workshop], Served]:
    """Vectors for `it`; stock has them as a token of its own, loaded by diffusers."""

    def make(shop: Workshop) -> Served:
        torch.manual_seed(13)
        tensors = {name: _draw(3, width) for name, width in widths.items()}
        pipeline = copy.deepcopy(shop.models.stock(family))
        for number, own in enumerate(tensors.values()):
            end = "" if number == 0 else f"_{number + 1}"
            pipeline.load_textual_inversion(
                own,
                token="it",
                text_encoder=getattr(pipeline, f"text_encoder{end}"),
                tokenizer=getattr(pipeline, f"tokenizer{end}"),
            )
        file, model = shop.write(tensors), shop.models.folder(family)
        return Served(file, pipeline, said or {}, add_on="embedding", model=model)

    return make


def _half_an_embedding(key: str, width: int) -> Callable[[Workshop], Served]:
    """Vectors for one of XL's text encoders; the other one reads the text without the word."""

    def make(shop: Workshop) -> Served:
        torch.manual_seed(13)
        own, end = _draw(3, width), "" if key == "clip_l" else "_2"
        pipeline = copy.deepcopy(shop.models.stock("sdxl"))
        pipeline.load_textual_inversion(
            own,
            token="it",
            text_encoder=getattr(pipeline, f"text_encoder{end}"),
            tokenizer=getattr(pipeline, f"tokenizer{end}"),
        )
        other = "_2" if key == "clip_l" else ""
        asked = {f"prompt{end}": "a red square of it", f"prompt{other}": "a red square of"}
        file, model = shop.write({key: own}), shop.models.folder("sdxl")
        return Served(file, pipeline, add_on="embedding", model=model, asked=asked)

    return make


def _large(name: str, add_on: str, family: str = "sd1") -> Callable[[Workshop], Served]:
    """A file of the published size without numbers, which is refused by its header."""
    return lambda shop: Served(
        community_files.write_named(shop.root, name),
        add_on=add_on,
        model=shop.models.folder(family),
    )


def _upscaler(form: str) -> Callable[[Workshop], Served]:
    """Random weights; the truth is the arithmetic of the papers."""

    def make(shop: Workshop) -> Served:
        torch.manual_seed(14)
        scale, draw = upscaler_files.FORMS[form]
        tensors = draw()
        return Served(
            shop.write(tensors),
            add_on="upscaler",
            model=shop.models.folder("sd1"),
            enlarged=lambda picture: upscaler_files.by_hand(tensors, picture, scale),
        )

    return make


def _upscalers() -> dict[str, Case]:
    names = {"old": "ESRGAN", "bsrgan": "BSRGAN", "new": "Real-ESRGAN", "compact": "compact ESRGAN"}
    cases = {}
    for form in upscaler_files.FORMS:
        name, _, factor = form.partition("-x")
        layout = f"upscaler, {names[name]}, by {factor}"
        cases[f"upscaler-{form}"] = Case(
            layout, "`upscaler`", _upscaler(form), "the arithmetic of its paper", bound=1 / 255
        )
    return cases


def _loras() -> dict[str, Case]:
    dora = _as_dora(_KOHYA, "dora_scale")
    new_dora = _as_dora(_PEFT, "lora_magnitude_vector")
    rows: dict[str, tuple[str, Callable[[Workshop], Served]]] = {
        "lora-sd1-kohya": ("LoRA, kohya's names", _lora("sd1", _SD1, _KOHYA, _name(_KOHYAS))),
        "lora-sd1-makers": (
            "LoRA, kohya's names in the makers' way", _lora("sd1", _SD1, _KOHYA, _makers),
        ),
        "lora-sd1-text": (
            "LoRA, text encoder alone", _lora("sd1", _TEXT, _KOHYA, _name(_KOHYAS)),
        ),
        "lora-sd1-peft": (
            "LoRA, peft's names", _lora("sd1", _SD1 | _TEXT, _PEFT, _name(_DOTTED, ".")),
        ),
        "lora-sd1-peft-bare": (
            "LoRA, peft's names without `unet.`", _lora("sd1", _SD1, _PEFT, _name(_BARE, ".")),
        ),
        "lora-sd1-peft-saved": (
            "LoRA, as peft saves it", _lora("sd1", _SD1, _PEFT, _name(_SAVED, ".")),
        ),
        "lora-sd1-diffusers": (
            "LoRA, diffusers' older names", _lora("sd1", _SD1, _OLD, _name(_DOTTED, ".")),
        ),
        "lora-sd1-processors": (
            "LoRA, diffusers' first names",
            _lora("sd1", {"unet": _SD1["unet"][:2]}, _PROCESSORS, _processor),
        ),
        "locon-sd1": ("LoCon", _lora("sd1", _SD1_CONV, _KOHYA, _name(_KOHYAS))),
        "dora-sd1-kohya": ("DoRA, kohya's names", _lora("sd1", _SD1_CONV, dora, _name(_KOHYAS))),
        "dora-sd1-peft": (
            "DoRA, peft's names", _lora("sd1", _SD1, new_dora, _name(_DOTTED, ".")),
        ),
        "loha-sd1": ("LoHa", _lora("sd1", _SD1_CONV, _LOHA, _name(_KOHYAS))),
        "lokr-sd1": (
            "LoKr of whole matrices", _lora("sd1", _SD1_CONV, _lokr(None), _name(_KOHYAS)),
        ),
        "lokr-sd1-ranked": ("LoKr of a rank", _lora("sd1", _SD1_CONV, _lokr(2), _name(_KOHYAS))),
        "lora-sd2-kohya": (
            "LoRA of Stable Diffusion 2", _lora("sd2", _SD1, _KOHYA, _name(_KOHYAS)),
        ),
        "lora-xl-kohya": (
            "LoRA of Stable Diffusion XL, kohya's names in the makers' way",
            _lora("sdxl", _XL, _KOHYA, _makers),
        ),
        "lora-xl-kohya-diffusers": (
            "LoRA of Stable Diffusion XL, kohya's names in diffusers' way",
            _lora("sdxl", _XL, _KOHYA, _name(_KOHYAS_XL)),
        ),
        "lora-xl-text": (
            "LoRA of Stable Diffusion XL, text encoders alone",
            _lora("sdxl", _TEXT_XL, _KOHYA, _name(_KOHYAS_XL)),
        ),
        "lora-xl-peft": (
            "LoRA of Stable Diffusion XL, peft's names",
            _lora("sdxl", _XL | _TEXT_XL, _PEFT, _name(_DOTTED, ".")),
        ),
        "dora-xl-peft": (
            "DoRA of Stable Diffusion XL", _lora("sdxl", _XL, new_dora, _name(_DOTTED, ".")),
        ),
        "loha-xl": ("LoHa of Stable Diffusion XL", _lora("sdxl", _XL, _LOHA, _makers)),
        "lokr-xl": ("LoKr of Stable Diffusion XL", _lora("sdxl", _XL, _lokr(2), _makers)),
        "lokr-xl-lycoris": (
            "LoKr of Stable Diffusion XL, LyCORIS' names",
            _lora("sdxl", _XL, _lokr(None), _name(_LYCORIS)),
        ),
        "lora-sd3-peft": (
            "LoRA of Stable Diffusion 3", _lora("sd3-medium", _SD3, _PEFT, _name(_DOTTED, ".")),
        ),
        "lora-flux-peft": (
            "LoRA of FLUX.1, peft's names", _lora("flux-dev", _FLUX, _PEFT, _name(_DOTTED, ".")),
        ),
        "lora-flux-kohya": (
            "LoRA of FLUX.1, kohya's names", _flux_fused("lora_unet_", "_", _KOHYA),
        ),
        "lora-flux-comfy": (
            "LoRA of FLUX.1, ComfyUI's names", _flux_fused("diffusion_model.", ".", _PEFT),
        ),
        "loha-flux": ("LoHa of FLUX.1, kohya's names", _flux_fused("lora_unet_", "_", _LOHA)),
        "lokr-flux-lycoris": (
            "LoKr of FLUX.1, LyCORIS' names",
            _lora("flux-dev", _FLUX, _lokr(None), _name(_LYCORIS)),
        ),
        "lora-flux-onetrainer": (
            "LoRA of FLUX.1, OneTrainer's names",
            _lora("flux-dev", _FLUX, _KOHYA, _name(_KOHYAS)),
        ),
        "lora-sd3-kohya": (
            "LoRA of Stable Diffusion 3, kohya's names", _sd3_fused("lora_unet_", "_", _KOHYA),
        ),
        "lora-sd3-comfy": (
            "LoRA of Stable Diffusion 3, ComfyUI's names",
            _sd3_fused("diffusion_model.", ".", _PEFT),
        ),
        "lora-sd3-kohya-text": (
            "LoRA of Stable Diffusion 3, text encoders alone",
            _lora("sd3-medium", _TEXT_XL, _KOHYA, _name(_KOHYAS_XL)),
        ),
        "full-sd1": (
            "LyCORIS full differences", _lora("sd1", _SD1_CONV, _FULL, _name(_KOHYAS)),
        ),
        "full-xl-lycoris": (
            "LyCORIS full differences of Stable Diffusion XL, LyCORIS' names",
            _lora("sdxl", _XL, _FULL, _name(_LYCORIS)),
        ),
    }  # fmt: skip
    return {key: Case(layout, "`lora`", make, _ARITHMETIC) for key, (layout, make) in rows.items()}


def _others() -> dict[str, Case]:
    a1111, vectors = {"trigger": "it"}, "vectors loaded by stock diffusers"
    alone = f"{vectors}, the other encoder's text without the word"
    rows: dict[str, tuple[str, str, Callable[[Workshop], Served], str]] = {
        "vae-ldm": ("VAE in its makers' names", "vae", _vae("sd1", files.vae), ""),
        "vae-ldm-prefixed": (
            "the same, `first_stage_model.` before the names", "vae",
            _vae("sd1", files.vae, "first_stage_model."), "",
        ),
        "vae-diffusers": ("VAE in diffusers' names", "vae", _vae("sd1", files.bare), ""),
        "vae-old": ("VAE in diffusers' old names", "vae", _vae("sd1", _old_vae), ""),
        "vae-16": ("VAE of 16 channels", "vae", _vae("flux-dev", files.vae), ""),
        "embedding-sd1-a1111": (
            "embedding of kohya's and A1111's", "embedding",
            _embedding("sd1", {"emb_params": 768}, a1111), vectors,
        ),
        "embedding-sd1-diffusers": (
            "embedding of diffusers", "embedding", _embedding("sd1", {"<cat-toy>": 768}), vectors,
        ),
        "embedding-sd1-converted": (
            "embedding as in A1111's .pt", "embedding",
            _embedding("sd1", {"string_to_param.*": 768}), vectors,
        ),
        "embedding-sd2-a1111": (
            "embedding of Stable Diffusion 2", "embedding",
            _embedding("sd2", {"emb_params": 1024}), vectors,
        ),
        "embedding-xl": (
            "embedding of Stable Diffusion XL", "embedding",
            _embedding("sdxl", {"clip_l": 768, "clip_g": 1280}), vectors,
        ),
        "embedding-xl-clip-g": (
            "the same, `clip_g` alone", "embedding", _half_an_embedding("clip_g", 1280), alone,
        ),
        "embedding-clip-l": (
            "the same, `clip_l` alone", "embedding", _half_an_embedding("clip_l", 768), alone,
        ),
        "embedding-sd1-for-xl": (
            "embedding of Stable Diffusion 1 for Stable Diffusion XL", "embedding",
            _large("embedding-sd1-a1111", "embedding", "sdxl"), "",
        ),
        "controlnet-sd1": ("ControlNet", "lora", _large("controlnet-sd1-ldm", "lora"), ""),
        "upscaler-esrgan": ("upscaler", "lora", _large("upscaler-esrgan", "lora"), ""),
        "upscaler-swinir": (
            "upscaler, transformer", "upscaler", _large("upscaler-swinir", "upscaler"), "",
        ),
        "ip-adapter-face-id": (
            "IP adapter, Face ID", "ip_adapter", _large("ip-adapter-sd1-face-id", "ip_adapter"), "",
        ),
    }  # fmt: skip
    return {
        key: Case(layout, f"`{kind}`", make, checked or _STOCK)
        for key, (layout, kind, make, checked) in rows.items()
    }


ADD_ONS = _loras() | _others() | _upscalers()
