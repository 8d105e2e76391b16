"""The process that reads one pickle of tensors: `python -m serve_app.pipelines.unpickling`.

Arguments: SOURCE TARGET MEMORY_BYTES.

`dreamserve models convert` starts it, and kills it when it takes too long. It writes the tensors as
safetensors, and one line of JSON: how many there are, or why it was refused. torch's own reader
(`weights_only`) runs nothing that a pickle names, but makes tensors and numbers; beside that the
process has no network, starts no other, and has bounded memory.
"""

import ctypes
import json
import pickle
import re
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NoReturn, cast

import numpy as np
import torch
from safetensors.torch import save_file

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1
_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000  # of unshare(2)
_FORBIDDEN = ("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork")
# What trainers wrap the tensors in, those for painting first.
_WRAPPERS = ("params_ema", "state_dict", "module", "model_state_dict", "params", "model")
_EMBEDDING = "string_to_param"  # of A1111's embeddings
_GLOBAL = re.compile(r"GLOBAL (\S+)")
_BROKEN = (EOFError, OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError)
_ZIP = b"PK\x03\x04"


class _Inert:
    """Stands for a class that training's bookkeeping names and painting has no use for."""


_Allowed = Callable[..., object] | tuple[Callable[..., object], str]
_SCALAR = cast("Callable[..., object]", np.float64(0).__reduce__()[0])  # numpy's numbers
_NUMBERS: tuple[_Allowed, ...] = (
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    np.dtypes.Float64DType,
    np.dtypes.Float32DType,
    np.dtypes.Int64DType,
)
_UNUSED = (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "lightning.pytorch.callbacks.model_checkpoint.ModelCheckpoint",
)


class _Refused(Exception):
    """Why nothing is written, for the operator."""


def main(source: Path, target: Path, memory_bytes: int) -> None:
    """Convert a file; prints what became of it."""
    _confine(memory_bytes)
    try:
        tensors = _named(_read(source))
        save_file(tensors, target, {"format": "pt"})
        said: dict[str, object] = {"tensors": len(tensors)}
    except _Refused as exc:
        said = {"refused": str(exc)}
    except MemoryError:
        said = {"refused": f"needs more than {memory_bytes} bytes of memory"}
    except OSError as exc:
        said = {"refused": f"cannot be read or written: {exc.strerror}"}
    sys.stdout.write(json.dumps(said) + "\n")


def _confine(memory_bytes: int) -> None:
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # not to outlive the command
    libc.unshare(_NEW_USER | _NEW_NETWORK)  # not allowed everywhere; the hook below is
    sys.addaudithook(_refuse_events)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + memory_bytes,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _refuse_events(event: str, _: object) -> None:
    if event.startswith(_FORBIDDEN):
        raise PermissionError(event)


def _read(source: Path) -> object:
    with source.open("rb") as opened:
        is_zip = opened.read(len(_ZIP)) == _ZIP
    unused: list[_Allowed] = [(_Inert, name) for name in _UNUSED]
    try:
        with torch.serialization.safe_globals([*_NUMBERS, *unused]):
            return torch.load(source, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as exc:
        _refuse(str(exc), exc)
    except _BROKEN as exc:
        if "allocate memory" in str(exc):
            raise MemoryError from exc
        if "TorchScript" in str(exc):
            raise _Refused("is a program (TorchScript), not a file of weights") from exc
        raise _Refused("is truncated, or nothing that torch has saved") from exc


def _refuse(text: str, error: Exception) -> NoReturn:
    if found := _GLOBAL.search(text):
        name = "".join(letter for letter in found[1] if letter.isprintable())[:96]
        raise _Refused(f"wants {name}, which is not a tensor; nothing of it was run") from error
    raise _Refused("is truncated, or nothing that torch has saved") from error


def _named(said: object) -> dict[str, torch.Tensor]:
    """Take tensors out of what they are wrapped in; raises _Refused where there are none."""
    tensors = dict(_apart(_unwrapped(said)))
    if not tensors:
        raise _Refused("holds no tensors by name: it is not a file of weights")
    return tensors


def _unwrapped(said: object) -> Mapping[object, object]:
    while isinstance(said, Mapping):
        own = said.get(_EMBEDDING)
        if isinstance(own, Mapping) and len(own) == 1:
            return {"emb_params": next(iter(own.values()))}
        inner = [said[name] for name in _WRAPPERS if isinstance(said.get(name), Mapping)]
        if not inner or any(isinstance(value, torch.Tensor) for value in said.values()):
            return said
        said = inner[0]
    return {}


def _apart(said: Mapping[object, object]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield what safetensors can hold: tensors that are whole, and share no memory."""
    seen: set[int] = set()
    for name, value in said.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            continue  # epochs, steps, settings of the training
        if value.layout is not torch.strided or value.is_quantized or value.is_meta:
            raise _Refused(f"{name[:96]} is a tensor of a kind that safetensors does not have")
        tensor = value.detach().contiguous()
        storage = tensor.untyped_storage()
        is_shared = storage.data_ptr() in seen or storage.nbytes() != tensor.nbytes
        seen.add(storage.data_ptr())
        yield name, tensor.clone() if is_shared else tensor


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
