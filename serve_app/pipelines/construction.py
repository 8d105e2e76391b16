"""Keeps the construction of modules in its thread, beside others that construct or paint.

For the time of a construction diffusers, transformers, accelerate and peft change the whole
process: torch's default dtype, `nn.Module.register_parameter`, `tie_weights`, `torch.nn.init`,
`torch.linspace`. What another thread constructs or paints meanwhile goes wrong, and where two end
in another order than they began, a change stays for ever. Here their functions are replaced by
ones that change the calling thread alone: nobody waits for anybody, and no caller thinks of it.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TypeGuard

import numpy as np
import torch
from accelerate import big_modeling
from diffusers import ModelMixin
from diffusers.models import modeling_utils as diffusers_models
from peft.utils import integrations as peft_integrations
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel, initialization
from transformers import modeling_utils as transformers_models

__all__ = ["keep_in_threads"]

# Tensors of the default dtype, where none is named: always, and where they are made of floats.
_FLOATS = {torch.empty, torch.ones, torch.zeros, torch.eye, torch.linspace, torch.rand, torch.randn}
_INFERRED = {torch.tensor, torch.full, torch.arange, torch.scalar_tensor}
_DRAWS = {nn.init.kaiming_uniform_, nn.init.uniform_, nn.init.normal_, nn.init.constant_}


class _Own(threading.local):
    """How this thread constructs.

    device: where parameters go when they are registered; none: they stay where they are.
    dtype: that diffusers asks for in the construction to come.
    ties: whether models of transformers tie their weights.
    """

    device: torch.device | None = None
    dtype: torch.dtype | None = None
    ties: bool = True


_own = _Own()
_lock = threading.Lock()
_tie_weights = PreTrainedModel.tie_weights
# It makes `torch.nn.init` spare what was read from a file. Once it was entered, never to be left,
# transformers changes nothing by entering and leaving it.
_guard = initialization.guard_torch_init_functions()


def keep_in_threads() -> None:
    """Replace what changes the process, once; to be called before anything is loaded.

    Raises:
        AttributeError: a library does not have a function that is to be replaced.
    """
    with _lock:
        if PreTrainedModel.tie_weights is _tie_if_wanted:
            return
        for owner, name, own in _REPLACEMENTS:
            getattr(owner, name)
            setattr(owner, name, own)
        # torch's type says that hooks return nothing, its text that they may return a parameter.
        register_module_parameter_registration_hook(_put)  # type: ignore[arg-type]
        before = tuple(_DRAWS)
        _guard.__enter__()
        # Under the guard torch looks its own functions up by name, and names transformers' ones.
        _DRAWS.update(getattr(nn.init, draw.__name__) for draw in before)


class _Making(TorchFunctionMode):
    """How tensors are made under it.

    dtype: where no other is named.
    draws: whether `torch.nn.init` draws weights; those on the meta device need none.
    """

    def __init__(self, dtype: torch.dtype, *, draws: bool = True) -> None:
        super().__init__()
        self._dtype = dtype
        self._draws = draws

    def __torch_function__(
        self,
        func: Callable[..., object],
        _types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        named = dict(kwargs or {})
        if func in _DRAWS and not self._draws:
            return named["tensor"] if "tensor" in named else args[0]
        if named.get("dtype") is not None:
            return func(*args, **named)
        if func in _FLOATS:
            named["dtype"] = self._dtype
        made = func(*args, **named)
        return made.to(self._dtype) if func in _INFERRED and _is_of_floats(made, args) else made


def _is_of_floats(made: object, args: tuple[object, ...]) -> TypeGuard[torch.Tensor]:
    """Whether a tensor is made of Python's floats: arrays and tensors have a dtype to keep."""
    is_float = isinstance(made, torch.Tensor) and made.is_floating_point()
    return is_float and not any(isinstance(value, torch.Tensor | np.ndarray) for value in args)


class _LinspaceOnCpu(TorchFunctionMode):
    """For models that read values while they are constructed on the meta device."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        _types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        default = {"device": "cpu"} if func is torch.linspace else {}
        return func(*args, **default | dict(kwargs or {}))


@contextmanager
def _having(name: str, value: object) -> Iterator[None]:
    """Construct in another way for a while."""
    before = getattr(_own, name)
    setattr(_own, name, value)
    try:
        yield
    finally:
        setattr(_own, name, before)


def _put(_module: nn.Module, _name: str, param: nn.Parameter) -> nn.Parameter | None:
    """Move a parameter that is being registered, as accelerate does; None leaves it as it is."""
    if _own.device is None:
        return None
    moved = type(param)(param.detach().to(_own.device), requires_grad=param.requires_grad)
    moved.__dict__.update(param.__dict__)
    return moved


def _tie_if_wanted(model: PreTrainedModel, *args: object, **kwargs: object) -> None:
    if _own.ties:
        _tie_weights(model, *args, **kwargs)


def _on_device(
    device: torch.device, include_buffers: bool | None = None
) -> AbstractContextManager[object]:
    """Put parameters there; to put buffers there too torch changes this thread by itself."""
    return device if include_buffers else _having("device", device)


def _in_dtype(dtype: torch.dtype, _model: str | None = None) -> AbstractContextManager[object]:
    return _Making(dtype)


def _remember_dtype(_cls: type, dtype: torch.dtype) -> None:
    """Take what `_in_remembered_dtype` is to use; None says that there is nothing to restore."""
    _own.dtype = dtype


def _in_remembered_dtype() -> AbstractContextManager[object]:
    """Construct for diffusers, which enters this when it has told the dtype."""
    dtype, _own.dtype = _own.dtype or torch.get_default_dtype(), None
    return _Making(dtype, draws=False)


_REPLACEMENTS: tuple[tuple[object, str, object], ...] = (
    (big_modeling, "init_on_device", _on_device),
    (peft_integrations, "_init_on_device", _on_device),
    (peft_integrations, "_skip_init_on_device", lambda: _having("device", None)),
    (ModelMixin, "_set_default_torch_dtype", classmethod(_remember_dtype)),
    (diffusers_models, "no_init_weights", _in_remembered_dtype),
    (transformers_models, "local_torch_dtype", _in_dtype),
    (initialization, "no_tie_weights", lambda: _having("ties", False)),
    (initialization, "meta_device_safe_creation_ops", _LinspaceOnCpu),
    (PreTrainedModel, "tie_weights", _tie_if_wanted),
)
