"""`remember_parameters`: attention looks up once what its processors may be given.

diffusers reads the signature of the processor in each attention of a denoiser, at each forward: a
twelfth of the time that a forward of Stable Diffusion takes where little is computed, as on a GPU
that waits for its launches. Signatures of methods do not change.
"""

import inspect
from collections.abc import Callable
from types import FunctionType, MethodType

import torch
from diffusers.models import attention_processor
from diffusers.models.transformers import transformer_flux

__all__ = ["remember_parameters"]

_READERS = (attention_processor, transformer_flux)


def remember_parameters() -> None:
    """Replace what reads signatures, in the modules that read them at each call.

    A module that does not read them any more is left as it is.
    """
    for module in _READERS:
        if getattr(module, "inspect", None) is inspect:
            module.inspect = _Inspect()


class _Inspect:
    """Is `inspect`, with a memory for the signatures of methods."""

    def __init__(self) -> None:
        self._known: dict[FunctionType, inspect.Signature] = {}

    def __getattr__(self, name: str) -> object:
        return getattr(inspect, name)

    def signature(self, of: Callable[..., object]) -> inspect.Signature:
        """Return the signature of a method, for all objects of its class, or of anything else."""
        # A compiler knows `inspect` itself.
        if torch.compiler.is_compiling() or not isinstance(of, MethodType):
            return inspect.signature(of)
        function = of.__func__
        assert isinstance(function, FunctionType), "methods are of functions"
        if function not in self._known:
            self._known[function] = inspect.signature(of)
        return self._known[function]
