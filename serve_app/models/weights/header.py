"""The header of a safetensors file: which tensors it holds, and where. Needs no torch.

Source: the safetensors format, 8 bytes of little-endian length, a JSON object, then the tensors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

import pydantic_core
from pydantic import NonNegativeInt, TypeAdapter

__all__ = ["FORMAT_MAX_BYTES", "Header", "Tensor", "TooManyTensors", "read_header", "read_length"]

FORMAT_MAX_BYTES = 100_000_000
_LENGTH_BYTES = 8


class TooManyTensors(ValueError):
    """A header names more tensors than its reader wants to look at: `TooManyTensors(number)`."""

    def __init__(self, number: int) -> None:
        super().__init__(f"{number} tensors")
        self.number = number


@dataclass(frozen=True, slots=True)
class Tensor:
    """What the header says of a tensor. data_offsets: bytes from the end of the header."""

    dtype: str
    shape: tuple[NonNegativeInt, ...]
    data_offsets: tuple[NonNegativeInt, NonNegativeInt]


_TENSORS = TypeAdapter(dict[str, Tensor])


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says before its tensors.

    tensors: by name.
    start: the byte of the file that `data_offsets` count from.
    metadata: what its writer said of the file, as texts.
    """

    tensors: Mapping[str, Tensor]
    start: int
    metadata: Mapping[str, str]

    @property
    def file_bytes(self) -> int:
        """How long the whole file must be."""
        return self.start + max((t.data_offsets[1] for t in self.tensors.values()), default=0)


def read_length(opened: BinaryIO) -> int:
    """Read how many bytes the JSON object has, which begins where the file then stands."""
    return int.from_bytes(opened.read(_LENGTH_BYTES), "little")


def read_header(
    opened: BinaryIO, max_bytes: int = FORMAT_MAX_BYTES, max_tensors: int | None = None
) -> Header:
    """Read the header of a file that stands at its beginning.

    Raises:
        TooManyTensors: it names more than `max_tensors`.
        ValueError: this is no such header, or a longer one.
    """
    length = read_length(opened)
    if length > max_bytes:
        raise ValueError(f"a header of {length} bytes, more than {max_bytes}")
    said = pydantic_core.from_json(opened.read(length))
    metadata = said.pop("__metadata__", None) if isinstance(said, dict) else None
    if max_tensors is not None and isinstance(said, dict) and len(said) > max_tensors:
        raise TooManyTensors(len(said))  # before time is spent on each
    texts = metadata.items() if isinstance(metadata, dict) else ()
    return Header(
        tensors=_TENSORS.validate_python(said),
        start=_LENGTH_BYTES + length,
        metadata={name: text for name, text in texts if isinstance(text, str)},
    )
