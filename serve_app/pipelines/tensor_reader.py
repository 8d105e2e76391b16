"""`TensorReader`: how tensors come from files into memory; `read_modules` does so for a folder.

On the CPU each is looked at and copied while the system reads the next ones, in the order of the
files: what took its turn after the disk takes place beside it. On another device they stay mapped
until they are moved there.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import diffusers
import torch
from accelerate import init_empty_weights
from diffusers import ModelMixin
from safetensors import safe_open

from serve_app.models.weights.folder import weight_files
from serve_app.pipelines.soundness import check_tensor

__all__ = ["Places", "TensorReader", "Tensors", "places", "read_modules"]

Tensors = dict[str, torch.Tensor]
_CONV_DIM = 4  # of the weights of a convolution
_WEIGHTS = "diffusion_pytorch_model"  # as diffusers names the files of its modules


class _Slice(Protocol):
    def get_shape(self) -> Sequence[int]: ...


class _File(Protocol):
    def get_tensor(self, name: str) -> torch.Tensor: ...

    def get_slice(self, name: str) -> _Slice: ...


class Place(NamedTuple):
    """Where a tensor is. name: in the file."""

    file: _File
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape, from the header."""
        return tuple(self.file.get_slice(self.name).get_shape())


Places = Mapping[str, Place]


@contextmanager
def places(file: Path) -> Iterator[Places]:
    """Open a file; gives where its tensors are, in the order in which they lie there.

    Raises:
        OSError: it cannot be read.
        SafetensorError: it is truncated or no safetensors file.
    """
    with safe_open(file, "pt") as opened:
        yield {name: Place(opened, name) for name in opened.offset_keys()}


@dataclass(frozen=True, slots=True)
class TensorReader:
    """Reads the tensors of one model.

    copies: into memory of their own, which no file can change; each is looked at first. Else
        tensors are mapped, and `settle` does both.
    channels_last: the layout in which copies of convolutions are wanted.
    """

    copies: bool
    channels_last: bool

    def tensors(self, part: str, wanted: Places, dtype: torch.dtype | None = None) -> Tensors:
        """Read tensors of a component, by the names under which they are wanted.

        dtype: of copies of real numbers; none: as they are, as is what is mapped.

        Raises:
            Unfit: one holds NaN or infinity, or does so in the dtype.
        """
        return {name: self._tensor(part, place, dtype) for name, place in wanted.items()}

    def _tensor(self, part: str, place: Place, dtype: torch.dtype | None) -> torch.Tensor:
        tensor = place.file.get_tensor(place.name)
        if not self.copies:
            return tensor
        is_last = self.channels_last and tensor.dim() == _CONV_DIM
        form = torch.channels_last if is_last else torch.preserve_format
        kept = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
        name = f"{part}: {place.name}"
        if kept is tensor.dtype:
            check_tensor(name, tensor)  # before it is copied, which then finds it in the cache
        copied = tensor.to(kept, copy=True, memory_format=form)
        if kept is not tensor.dtype:
            check_tensor(name, copied)  # a number may be too large for the dtype
        return copied


def read_modules(
    folder: Path,
    index: Mapping[str, Sequence[str]],
    variant: str | None,
    dtype: torch.dtype,
    reader: TensorReader,
) -> dict[str, ModelMixin]:
    """Read the modules of a pipeline's folder for which copies of their files' tensors are enough.

    The rest is left to the libraries, which know older names and other kinds of files.

    Args:
        index: library and class of each component that is wanted.
        variant: of the files.

    Raises:
        Unfit: a tensor holds NaN or infinity.
        OSError: a file cannot be read.
        SafetensorError: a file is truncated or no safetensors file.
    """
    found: dict[str, ModelMixin] = {}
    for name, (library, class_name) in index.items() if reader.copies else ():
        file = _only_file(folder / name, variant)
        if library == "diffusers" and file is not None:
            cls: type[ModelMixin] = getattr(diffusers, class_name)
            module = _module(name, cls, folder / name, file, dtype, reader)
            found |= {} if module is None else {name: module}
    return found


def _only_file(component: Path, variant: str | None) -> Path | None:
    """Return the file that diffusers would load; None where there are others beside it.

    Of several, which may be copies of training, older ones or shards, diffusers knows which count.
    """
    files = weight_files(component, variant)
    is_alone = len(files) == 1 and files[0].name.partition(".")[0] == _WEIGHTS
    return files[0] if is_alone else None


def _module(
    name: str,
    cls: type[ModelMixin],
    folder: Path,
    file: Path,
    dtype: torch.dtype,
    reader: TensorReader,
) -> ModelMixin | None:
    with init_empty_weights():
        module = cls.from_config(cls.load_config(folder))
    shapes = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    with places(file) as found:
        if {key: place.shape for key, place in found.items()} != shapes:
            return None
        module.load_state_dict(reader.tensors(name, found, dtype), assign=True)
    return module
