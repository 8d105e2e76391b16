"""Cases: checkpoints, and denoisers alone."""

import copy
from collections.abc import Callable, Mapping

import torch
from diffusers import DiffusionPipeline

from serve_app.types import Kind
from tests import community_files
from tests.engine.published import files
from tests.engine.published.files import Tensors, under
from tests.engine.published.workshop import Case, Served, Workshop

__all__ = ["CHECKPOINTS"]

Change = Callable[[Tensors], Tensors]
_PARTS = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")
_BEGINNINGS = {"vae": ("first_stage_model.", "vae."), "clip_g": ("conditioner.embedders.1.",)}


def _in_bits(pipeline: DiffusionPipeline, dtype: torch.dtype) -> DiffusionPipeline:
    """Copy a pipeline with its weights rounded."""
    copied = copy.deepcopy(pipeline)
    for name in _PARTS:
        if part := getattr(copied, name, None):
            part.to(dtype).float()
    return copied


def _trained(pipeline: DiffusionPipeline, **said: object) -> DiffusionPipeline:
    copied = copy.copy(pipeline)
    copied.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config, **said)
    return copied


def _whole(
    family: str,
    change: Change = lambda tensors: tensors,
    stock: Callable[[DiffusionPipeline], DiffusionPipeline] = lambda pipeline: pipeline,
    spec: Mapping[str, object] | None = None,
    base: str | None = None,
    header: Mapping[str, str] | None = None,
    **said: object,
) -> Callable[[Workshop], Served]:
    """A checkpoint as its makers pack it, changed; base: the field that names a folder."""

    def make(shop: Workshop) -> Served:
        pipeline = shop.models.stock(family)
        file = shop.write(change(files.checkpoint(pipeline)), **(header or {}))
        named = {} if base is None else {base: shop.models.folder(family)}
        return Served(file, stock(pipeline), {**named, **said}, spec=spec or {})

    return make


def _alone(
    family: str, name: Callable[[torch.nn.Module], Tensors], beginning: str = ""
) -> Callable[[Workshop], Served]:
    """A denoiser, with everything else from a base."""

    def make(shop: Workshop) -> Served:
        pipeline = shop.models.stock(family)
        denoiser = getattr(pipeline, "unet", None) or pipeline.transformer
        file = shop.write(under(beginning, name(denoiser)))
        return Served(file, pipeline, {"base": shop.models.folder(family)})

    return make


def _without(*parts: str) -> Change:
    beginnings = tuple(start for part in parts for start in _BEGINNINGS[part])
    return lambda own: {n: t for n, t in own.items() if not n.startswith(beginnings)}


def _renamed(old: str, new: str) -> Change:
    return lambda own: {name.replace(old, new): tensor for name, tensor in own.items()}


def _and(**marks: torch.Tensor) -> Change:
    return lambda own: own | marks


def _with_vae_file(family: str, beginning: str) -> Callable[[Workshop], Served]:
    def make(shop: Workshop) -> Served:
        pipeline = shop.models.stock(family)
        vae = shop.write(under(beginning, files.vae(pipeline.vae)))
        file = shop.write(_without("vae")(files.checkpoint(pipeline)))
        return Served(file, pipeline, {"vae": vae})

    return make


def _flat(shop: Workshop) -> Served:
    pipeline = shop.models.stock("sd1")
    tensors: Tensors = {}
    for name in ("unet", "vae", "text_encoder"):
        tensors |= under(f"{name}.", getattr(pipeline, name).state_dict())
    return Served(shop.write(tensors), pipeline)


def _with_ema(shop: Workshop) -> Served:
    pipeline = shop.models.stock("sd1")
    copies = files.ema_of(pipeline.unet)
    return Served(shop.write(files.checkpoint(pipeline) | copies), pipeline)


def _without_t5(pipeline: DiffusionPipeline) -> DiffusionPipeline:
    copied = copy.copy(pipeline)
    copied.register_modules(text_encoder_3=None, tokenizer_3=None)
    return copied


def _large(name: str, base: str | None = "base") -> Callable[[Workshop], Served]:
    """A file of the published size without numbers, which is refused by its header."""

    def make(shop: Workshop) -> Served:
        said = {} if base is None else {base: shop.models.folder("sd1")}
        return Served(community_files.write_named(shop.root, name), said=said)

    return make


_INPAINT = {"kind": Kind.INPAINT, "strength": 0.7}
_V = {"prediction_type": "v_prediction"}
_ZERO = {**_V, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
_OLD_TEXT = _renamed("cond_stage_model.transformer.text_model.", "cond_stage_model.transformer.")
_MARKS = _and(v_pred=torch.zeros(1), ztsnr=torch.zeros(1))
_T5_WORDS = _renamed(".shared.weight", ".encoder.embed_tokens.weight")
_FP8, _HALF, _BRAIN = torch.float8_e4m3fn, torch.float16, torch.bfloat16


def _bits(family: str, dtype: torch.dtype, **said: object) -> Callable[[Workshop], Served]:
    return _whole(family, files.rounded(dtype), lambda stock: _in_bits(stock, dtype), **said)


CHECKPOINTS = {
    "sd1": Case("Stable Diffusion 1, as its makers packed it", "alone", _whole("sd1")),
    "sd1-fp16": Case("Stable Diffusion 1 in fp16", "alone", _bits("sd1", _HALF)),
    "sd1-bf16": Case("Stable Diffusion 1 in bf16", "alone", _bits("sd1", _BRAIN)),
    "sd1-fp8": Case("Stable Diffusion 1 in fp8", "alone", _bits("sd1", _FP8)),
    "sd1-with-ema": Case("Stable Diffusion 1 with EMA copies", "alone", _with_ema),
    "sd1-old-text-keys": Case(
        "Stable Diffusion 1, text encoder without `text_model.`", "alone", _whole("sd1", _OLD_TEXT)
    ),
    "sd1-flat": Case("Stable Diffusion 1 as a pipeline of diffusers in one file", "alone", _flat),
    "sd1-no-vae": Case(
        "Stable Diffusion 1 without VAE", "with `base`", _whole("sd1", _without("vae"), base="base")
    ),
    "sd1-vae-file": Case(
        "Stable Diffusion 1 without VAE, and a VAE in its makers' names",
        "with `vae`",
        _with_vae_file("sd1", ""),
    ),
    "sd1-vae-file-prefixed": Case(
        "the same, `first_stage_model.` before the VAE's names",
        "with `vae`",
        _with_vae_file("sd1", "first_stage_model."),
    ),
    "sd1-settings": Case(
        "Stable Diffusion 1 with a folder of settings",
        "with `base_config`",
        _whole("sd1", base="base_config"),
    ),
    "sd1-inpainting": Case(
        "Stable Diffusion 1, inpainting", "alone", _whole("sd1-inpainting", spec=_INPAINT)
    ),
    "sd1-pix2pix": Case("Stable Diffusion 1, pix2pix", "with `base`", _large("sd1-pix2pix")),
    "sd1-unet": Case(
        "Stable Diffusion 1, UNet alone",
        "with `base`",
        _alone("sd1", files.unet, "model.diffusion_model."),
    ),
    "sd1-unet-short": Case(
        "the same, `diffusion_model.` before the names",
        "with `base`",
        _alone("sd1", files.unet, "diffusion_model."),
    ),
    "sd1-unet-bare": Case(
        "the same, nothing before the names", "with `base`", _alone("sd1", files.unet)
    ),
    "sd1-unet-diffusers": Case(
        "the same in diffusers' names", "with `base`", _alone("sd1", files.bare)
    ),
    "sd2": Case(
        "Stable Diffusion 2, predicting the velocity",
        "with `prediction_type`",
        _whole("sd2", stock=lambda stock: _trained(stock, **_V), **_V),
    ),
    "sd2-epsilon": Case(
        "Stable Diffusion 2, predicting the noise",
        "with `prediction_type`",
        _whole("sd2", prediction_type="epsilon"),
    ),
    "sd2-modelspec": Case(
        "Stable Diffusion 2 whose header tells the prediction",
        "alone",
        _whole(
            "sd2",
            stock=lambda stock: _trained(stock, **_V),
            header={"modelspec.prediction_type": "v"},
        ),
    ),
    "sd2-untold": Case("Stable Diffusion 2 that tells nothing", "alone", _whole("sd2")),
    "sd2-depth": Case("Stable Diffusion 2, depth", "with `base`", _large("sd2-depth")),
    "sdxl": Case("Stable Diffusion XL", "alone", _whole("sdxl")),
    "sdxl-fp16": Case("Stable Diffusion XL in fp16", "alone", _bits("sdxl", _HALF)),
    "sdxl-v-zsnr": Case(
        "Stable Diffusion XL with `v_pred` and `ztsnr`",
        "alone",
        _whole("sdxl", _MARKS, lambda stock: _trained(stock, **_ZERO)),
        bound=5e-4,  # stock rounds at a noise level of 4096: `test_tabulated.py`
    ),
    "sdxl-edm": Case(
        "Stable Diffusion XL with `edm_mean`", "alone", _whole("sdxl", _and(edm_mean=torch.ones(4)))
    ),
    "sdxl-no-vae": Case(
        "Stable Diffusion XL without VAE", "with `vae`", _with_vae_file("sdxl", "")
    ),
    "sdxl-no-clip-g": Case(
        "Stable Diffusion XL without its second text encoder",
        "with `base`",
        _whole("sdxl", _without("clip_g"), base="base"),
    ),
    "sdxl-no-clip-g-alone": Case("the same", "alone", _whole("sdxl", _without("clip_g"))),
    "sdxl-inpainting": Case(
        "Stable Diffusion XL, inpainting", "alone", _whole("sdxl-inpainting", spec=_INPAINT)
    ),
    "sdxl-unet": Case(
        "Stable Diffusion XL, UNet alone, nothing before the names",
        "with `base`",
        _alone("sdxl", files.unet),
    ),
    "sdxl-unet-diffusers": Case(
        "the same in diffusers' names", "with `base`", _alone("sdxl", files.bare)
    ),
    "sdxl-refiner": Case("Stable Diffusion XL, refiner", "alone", _large("sdxl-refiner", None)),
    "sd3": Case(
        "Stable Diffusion 3, all in one; T5 is left out",
        "alone",
        _whole("sd3-medium", stock=_without_t5),
    ),
    "sd3-settings": Case(
        "the same with T5", "with `base_config`", _whole("sd3-medium", base="base_config")
    ),
    "sd3-fp8": Case(
        "the same in fp8", "with `base_config`", _bits("sd3-medium", _FP8, base="base_config")
    ),
    "sd3-transformer": Case(
        "Stable Diffusion 3, transformer alone",
        "with `base`",
        _alone("sd3-medium", files.transformer, "model.diffusion_model."),
    ),
    "sd3-diffusers": Case(
        "the same in diffusers' names", "with `base`", _alone("sd3-medium", files.bare)
    ),
    "sd35-medium": Case(
        "Stable Diffusion 3.5 medium, transformer alone",
        "with `base`",
        _alone("sd3.5-medium", files.transformer, "model.diffusion_model."),
    ),
    "flux-dev": Case(
        "FLUX.1 dev, transformer alone", "with `base`", _alone("flux-dev", files.transformer)
    ),
    "flux-dev-short": Case(
        "the same, `diffusion_model.` before the names",
        "with `base`",
        _alone("flux-dev", files.transformer, "diffusion_model."),
    ),
    "flux-diffusers": Case(
        "the same in diffusers' names", "with `base`", _alone("flux-dev", files.bare)
    ),
    "flux-schnell": Case(
        "FLUX.1 schnell, transformer alone",
        "with `base`",
        _alone("flux-schnell", files.transformer, "model.diffusion_model."),
    ),
    "flux-all-in-one": Case(
        "FLUX.1 dev, all in one",
        "with `base_config`",
        _whole("flux-dev", base="base_config"),
    ),
    "flux-all-in-one-fp8": Case(
        "the same in fp8", "with `base_config`", _bits("flux-dev", _FP8, base="base_config")
    ),
    "flux-all-in-one-words": Case(
        "the same, T5's words as `encoder.embed_tokens`",
        "with `base_config`",
        _whole("flux-dev", _T5_WORDS, base="base_config"),
    ),
    "flux-texts": Case(
        "the same, text encoders elsewhere",
        "with `text_encoders`",
        _whole("flux-dev", base="text_encoders"),
    ),
    "flux-alone": Case("the same without T5's vocabulary", "alone", _whole("flux-dev")),
    "flux-fill": Case("FLUX.1 fill", "with `base`", _large("flux-fill")),
    "flux-depth": Case("FLUX.1 depth or canny", "with `base`", _large("flux-depth")),
    "flux-scaled-fp8": Case("FLUX.1 in fp8 with scales", "with `base`", _large("flux-scaled-fp8")),
    "flux-nf4": Case("FLUX.1 in nf4", "with `base`", _large("flux-nf4")),
}
