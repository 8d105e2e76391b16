"""Proxies: what a stock pipeline holds in place of a shared module.

A proxy is a shallow copy, so that parameters, submodules, config and class checks are the real
module's, with a `forward` of its own that parks the call. Hooks are not shared: they would fire
on the proxy and on the real call.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from diffusers import AutoencoderKL
from torch import nn

from serve_app.engine.lane import Call, Lane
from serve_app.engine.weave import park

__all__ = ["Run", "denoiser_stand_in", "per_row", "stand_in", "vae_stand_in"]

M = TypeVar("M", bound=nn.Module)
Run = Callable[[dict[str, object]], object]  # a denoiser, called with its arguments by name
_HOOKS = tuple(name for name in vars(nn.Module()) if name.endswith("_hooks") or "_hooks_" in name)


def stand_in(module: M, forward: Callable[..., object]) -> M:
    """Copy a module shallowly and give it another forward."""
    copied = copy.copy(module)
    for name in _HOOKS:
        copied.__dict__[name] = OrderedDict()
    copied.__dict__["forward"] = forward
    copied.__dict__["_compiled_call_impl"] = None
    return copied


def denoiser_stand_in(
    module: nn.Module, lane: Lane, names: tuple[str, ...], around: Callable[[Run], Run]
) -> nn.Module:
    """Make a denoiser that parks its calls.

    names: of the positional arguments; the first is the sample, (B, ...). The timestep becomes a
        vector (B,), so that rows at different steps can share a forward.
    around: what is done around a call, which may make several of one.
    """
    is_unet = names[0] == "sample"

    def ask(arguments: dict[str, object]) -> object:
        sample = _sample(arguments, names)
        rows = sample.shape[0]
        return park(Call(lane, arguments, rows, size=sample.numel() // rows))

    run = around(ask)

    def forward(*args: object, **kwargs: object) -> object:
        given = dict(zip(names, args, strict=False)) | kwargs
        # Some pipelines say None for what others leave out, and all of them are to share forwards.
        arguments = {name: value for name, value in given.items() if value is not None}
        assert arguments.get("return_dict") is False, "stock pipelines ask for tuples"
        arguments["timestep"] = per_row(arguments["timestep"], _sample(arguments, names), is_unet)
        return run(arguments)

    return stand_in(module, forward)


def _sample(arguments: Mapping[str, object], names: tuple[str, ...]) -> torch.Tensor:
    sample = arguments[names[0]]
    assert isinstance(sample, torch.Tensor), "the sample is a tensor"
    return sample


def per_row(timestep: object, sample: torch.Tensor, is_unet: bool) -> torch.Tensor:
    """Make the timestep (B,). For UNets always float32: schedules of integers and floats meet.

    It stays where it is, on the CPU: those of all rows are brought to the device in one copy.
    """
    vector = torch.as_tensor(timestep)
    if is_unet or not vector.is_floating_point():
        vector = vector.to(torch.float32)
    return vector.expand(sample.shape[0])


def vae_stand_in(vae: AutoencoderKL, encoder: Lane, decoder: Lane) -> AutoencoderKL:
    """Make a VAE whose encoder and decoder park their calls, so that they batch by shape.

    Its dtype is fixed: SDXL pipelines convert the VAE to and fro around each use, which must not
    happen to a shared one. Inputs are converted instead.
    """
    copied = stand_in(vae, vae.forward)

    def half(module: nn.Module, lane: Lane) -> nn.Module:
        def forward(sample: torch.Tensor) -> object:
            rows = sample.shape[0]
            return park(Call(lane, {"sample": sample}, rows, size=sample.numel() // rows))

        return stand_in(module, forward)

    copied.__dict__["_modules"] = dict(vae._modules) | {
        "encoder": half(vae.encoder, encoder),
        "decoder": half(vae.decoder, decoder),
    }
    encode, decode = copied.encode, copied.decode
    dtype = next(vae.parameters()).dtype  # `vae.dtype` walks through all modules at each call
    copied.__dict__["encode"] = lambda x, **kwargs: encode(x.to(dtype), **kwargs)
    copied.__dict__["decode"] = lambda z, **kwargs: decode(z.to(dtype), **kwargs)
    copied.__dict__["to"] = lambda *_args, **_kwargs: copied
    return copied
