"""A pretended accelerator, `pretend`: what a real one would refuse or wait for shows on a CPU.

A tensor on it computes with a CPU tensor inside. As on a real device, an operation that mixes it
with a CPU tensor of one or more dimensions raises. What the thread that calls would wait for is
counted with its place: copies from the host that are not from pinned memory, copies to the host,
and reads of numbers. Time says nothing.

Inference tensors cannot be wrapped, so `pretended()` puts `no_grad` in the place of
`inference_mode` while it lasts.
"""

import collections
import contextlib
import dataclasses
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import library
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

__all__ = ["DEVICE", "Ledger", "Pretended", "pretended"]

_NAME = "pretend"
_setup_privateuseone_for_python_backend(_NAME)
DEVICE = torch.device(_NAME, 0)
_ROOT = Path(__file__).parents[1]
_aten = torch.ops.aten
_READS = {
    _aten._local_scalar_dense.default,
    _aten.is_nonzero.default,
    _aten.equal.default,
    _aten.nonzero.default,
    _aten.masked_select.default,
    _aten._unique2.default,
}
_MAY_MIX = {  # with indices or values of the CPU
    _aten.index.Tensor,
    _aten.index_put.default,
    _aten.index_put_.default,
    _aten._index_put_impl_.default,
    _aten.copy_.default,
}


@dataclasses.dataclass
class Ledger:
    """What was done on the device since it was made.

    operations: that are not mere views. waits: kind and place of what the caller waits for.
    copies: kinds and places of copies for which nobody waits.
    """

    operations: int = 0
    waits: collections.Counter[tuple[str, str]] = dataclasses.field(
        default_factory=collections.Counter
    )
    copies: collections.Counter[tuple[str, str]] = dataclasses.field(
        default_factory=collections.Counter
    )
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def clear(self) -> None:
        """Count from zero."""
        with self.lock:
            self.operations = 0
            self.waits.clear()
            self.copies.clear()

    def totals(self) -> tuple[int, int, int]:
        """Count operations, copies and waits."""
        with self.lock:
            return self.operations, self.copies.total(), self.waits.total()

    def wait(self, kind: str) -> None:
        """Count a wait at the place that calls."""
        with self.lock:
            self.waits[kind, _place()] += 1

    def copy(self, kind: str) -> None:
        """Count a copy that takes its turn."""
        with self.lock:
            self.copies[kind, _place()] += 1

    def operate(self) -> None:
        """Count an operation."""
        with self.lock:
            self.operations += 1


_ledgers = [Ledger()]  # the last one counts


class Pretended(torch.Tensor):
    """A tensor on the pretended device. inner: the same numbers on the CPU."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "Pretended":
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
            requires_grad=False,
        )

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    def __repr__(self) -> str:
        return f"Pretended({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


@contextlib.contextmanager
def pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """Count into a new ledger; `inference_mode` is `no_grad` until the end."""
    monkeypatch.setattr(torch, "inference_mode", torch.no_grad)
    _ledgers.append(Ledger())
    try:
        yield _ledgers[-1]
    finally:
        _ledgers.pop()


def _run(func, args, kwargs):
    flat, _ = tree_flatten((args, kwargs))
    ours = [value for value in flat if isinstance(value, Pretended)]
    others = [
        value
        for value in flat
        if isinstance(value, torch.Tensor) and not isinstance(value, Pretended) and value.dim()
    ]
    if others and func not in _MAY_MIX:
        shapes = [tuple(value.shape) for value in others]
        raise RuntimeError(f"tensors on two devices: {func} of {ours[:2]} and CPU {shapes[:2]}")
    is_out = _counted(func, args, kwargs)
    if not func.is_view:
        _ledgers[-1].operate()
    result = func(*tree_map(_inside, args), **tree_map(_inside, kwargs))
    if is_out:
        return result
    known = {id(tensor.inner): tensor for tensor in ours}

    def outside(value):
        if not isinstance(value, torch.Tensor) or isinstance(value, Pretended):
            return value
        return known.get(id(value)) if id(value) in known else Pretended(value)

    return tree_map(outside, result)


def _counted(func, args, kwargs) -> bool:
    """Enter waits and copies into the ledger; whether the result is on the CPU."""
    if func in _READS:
        _ledgers[-1].wait(f"read by {func.overloadpacket.__name__}")
    if func is _aten._to_copy.default:
        device = kwargs.get("device")
        is_out = device is not None and torch.device(device).type == "cpu"
        if is_out:
            _ledgers[-1].wait("copy to the host")
        return is_out
    if func is _aten.copy_.default:
        target, source = args[0], args[1]
        if not isinstance(target, Pretended):
            _ledgers[-1].wait("copy to the host")
            return True
        if not isinstance(source, Pretended):
            is_waiting = not (len(args) > 2 and args[2]) and not kwargs.get("non_blocking")
            (_ledgers[-1].wait if is_waiting else _ledgers[-1].copy)("copy from the host")
        return False
    if func in (_aten.index.Tensor, _aten.index_put_.default, _aten._index_put_impl_.default):
        indices = [one for one in args[1] if isinstance(one, torch.Tensor)]
        if any(not isinstance(one, Pretended) for one in indices):
            _ledgers[-1].wait("indices from the host")
    return False


def _inside(value):
    if isinstance(value, Pretended):
        return value.inner
    if isinstance(value, torch.device) and value.type == _NAME:
        return torch.device("cpu")
    return value


def _place() -> str:
    """Name the nearest place in this project or in diffusers."""
    for frame in reversed(traceback.extract_stack()):
        path = frame.filename
        if "pretended_device" in path or "/torch/" in path:
            continue
        name = path.partition("site-packages/")[2] or str(Path(path).name)
        return f"{name}:{frame.lineno}"
    return "?"


# Makers of tensors, for which there is no tensor of the device to dispatch by.


def _made(make):
    """Return a maker that makes the same on the CPU and wraps it."""

    def run(*args, device=None, layout=None, pin_memory=None, **kwargs):
        return Pretended(make(*args, **{k: v for k, v in kwargs.items() if v is not None}))

    return run


def _copy_from(source: torch.Tensor, target: Pretended, non_blocking: bool = False) -> Pretended:
    """Copy as a constructor does, which hides its arguments from `__torch_dispatch__`."""
    if not isinstance(source, Pretended):
        (_ledgers[-1].copy if non_blocking else _ledgers[-1].wait)("copy from the host")
    target.inner.copy_(_inside(source))
    return target


_kernels = library.Library("aten", "IMPL")
for _name in (
    "arange",
    "arange.start",
    "arange.start_step",
    "empty.memory_format",
    "empty_strided",
    "eye.m",
    "linspace",
    "logspace",
    "randperm.generator",
):
    _base, _, _overload = _name.partition(".")
    _operation = getattr(getattr(_aten, _base), _overload or "default")
    _kernels.impl(_name, _made(_operation), "PrivateUse1")
_kernels.impl("_copy_from", _copy_from, "PrivateUse1")
