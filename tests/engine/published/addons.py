"""Cases: all add-ons. Here are VAEs, embeddings, upscalers, and what is no add-on."""

import copy
from collections.abc import Callable, Mapping

import torch

from tests import community_files
from tests.engine import upscaler_files
from tests.engine.published import files
from tests.engine.published.files import Tensors, under
from tests.engine.published.forms import draw
from tests.engine.published.loras import LORAS
from tests.engine.published.workshop import Case, Served, Workshop

__all__ = ["ADD_ONS"]

_STOCK = "stock diffusers with these weights"


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
        tensors = {name: draw(3, width) for name, width in widths.items()}
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
        own, end = draw(3, width), "" if key == "clip_l" else "_2"
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


ADD_ONS = LORAS | _others() | _upscalers()
