"""`module_of`: modules of diffusers with the tensors of a file, whoever named them.

diffusers' converters map names and matrices. What they would leave out is refused here.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from accelerate import init_empty_weights
from diffusers import AutoencoderKL, ModelMixin
from diffusers.loaders import single_file_utils as stock
from safetensors.torch import load_file

from serve_app import errors
from serve_app.models.weights.components import beginnings_of
from serve_app.pipelines.addons.misfit import Unfit
from serve_app.pipelines.soundness import check_shapes
from serve_app.pipelines.tensor_reader import Tensors

__all__ = ["module_of", "read_vae", "taken"]

T = TypeVar("T")
Settings = Mapping[str, object]

_UNET = "model.diffusion_model."
_OF_TRAINING = ("loss.", "model_ema.")  # tensors of VAEs that nothing but training reads
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def read_vae(file: Path, settings: Settings) -> AutoencoderKL:
    """Read a VAE alone, in float32 or what its file has, with settings that it does not tell.

    Raises:
        Unfit: it holds more or less than they say.
    """
    tensors = load_file(file)
    own, _ = taken(tensors, beginnings_of("vae", AutoencoderKL.__name__))
    vae = module_of(AutoencoderKL, own or tensors, settings)
    assert isinstance(vae, AutoencoderKL), "as asked for"
    return vae


def taken(tensors: Mapping[str, T], beginnings: tuple[str, ...]) -> tuple[dict[str, T], str]:
    """Return the tensors of the first beginning that there is, without it, and the beginning.

    tensors: or where they are, by name.
    """
    for beginning in beginnings:
        own = {
            name.removeprefix(beginning): tensor
            for name, tensor in tensors.items()
            if name.startswith(beginning)
        }
        if own:
            return own, beginning
    return {}, ""


def module_of(cls: type[ModelMixin], tensors: Tensors, settings: Settings) -> ModelMixin:
    """Make a module of diffusers with these tensors, which stay where they are.

    Args:
        tensors: in diffusers' names or those of the model's makers, without a beginning.
        settings: of the module.

    Raises:
        Unfit: they are more or less than the settings say, or the class is not served.
    """
    with init_empty_weights():
        model = cls.from_config(settings)
    convert = _CONVERTERS.get(cls.__name__)
    if convert is None:
        raise Unfit(f"settings of a {errors.echoed(cls.__name__)}", f"one of {sorted(_CONVERTERS)}")
    try:
        converted = convert(dict(tensors), model.config)
    except KeyError as exc:  # a tensor that it looks for, by its name
        raise Unfit(f"no {errors.echoed(exc.args[0])}", "all tensors of the model") from exc
    except (AttributeError, IndexError) as exc:
        raise Unfit("not all tensors", "all tensors of the model") from exc
    check_shapes(converted, model.state_dict())
    model.load_state_dict(converted, assign=True)
    return model


def _unet(tensors: Tensors, config: Settings) -> Tensors:
    if "conv_in.weight" in tensors:
        return tensors
    prefixed = {_UNET + name: tensor for name, tensor in tensors.items()}
    return _all_of(tensors, stock.convert_ldm_unet_checkpoint(prefixed, config))


def _vae(tensors: Tensors, config: Settings) -> Tensors:
    tensors = {n: tensor for n, tensor in tensors.items() if not n.startswith(_OF_TRAINING)}
    if any(name.startswith("decoder.mid.") for name in tensors):
        return _all_of(tensors, stock.convert_ldm_vae_checkpoint(tensors, config))
    return {_renamed(name): tensor for name, tensor in tensors.items()}


def _renamed(name: str) -> str:
    """Rename an attention of a VAE that diffusers saved before it called its parts `to_*`."""
    layer, _, kind = name.rpartition(".")
    place, _, part = layer.rpartition(".")
    return f"{place}.{_OLD_ATTENTION.get(part, part)}.{kind}" if ".attentions." in name else name


def _all_of(before: Tensors, after: Tensors) -> Tensors:
    """Raise Unfit where a converter left out what it does not know: it maps tensors one by one."""
    if len(after) != len(before):
        kept = {tensor.data_ptr() for tensor in after.values()}
        lost = [name for name, tensor in before.items() if tensor.data_ptr() not in kept]
        raise Unfit(f"{errors.echoed(lost[0] if lost else '')}, which the model lacks", "not it")
    return after


def _flux(tensors: Tensors, _: Settings) -> Tensors:
    if "x_embedder.weight" in tensors:
        return tensors
    return _emptied(tensors, stock.convert_flux_transformer_checkpoint_to_diffusers)


def _sd3(tensors: Tensors, _: Settings) -> Tensors:
    if "pos_embed.proj.weight" in tensors:
        return tensors
    return _emptied(tensors, stock.convert_sd3_transformer_checkpoint_to_diffusers)


def _emptied(tensors: Tensors, convert: Callable[[Tensors], Tensors]) -> Tensors:
    """Convert; these converters take out of the dict what they know."""
    converted = convert(tensors)
    if tensors:
        raise Unfit(f"{errors.echoed(next(iter(tensors)))}, which the model lacks", "not it")
    return converted


_CONVERTERS: Mapping[str, Callable[[Tensors, Settings], Tensors]] = {
    "UNet2DConditionModel": _unet,
    "AutoencoderKL": _vae,
    "FluxTransformer2DModel": _flux,
    "SD3Transformer2DModel": _sd3,
}
