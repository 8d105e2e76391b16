"""The header of a safetensors file: which tensors it holds, and where. Needs no torch.

Source: the safetensors format, 8 bytes of little-endian length, a JSON object, then the tensors.
"""

from dataclasses import dataclass
from typing import BinaryIO

import pydantic_core
from pydantic import NonNegativeInt, TypeAdapter

__all__ = ["FORMAT_MAX_BYTES", "Tensor", "read_header", "read_length"]

FORMAT_MAX_BYTES = 100_000_000
_LENGTH_BYTES = 8


@dataclass(frozen=True, slots=True)
class Tensor:
    """What the header says of a tensor. data_offsets: bytes from the end of the header."""

    dtype: str
    shape: tuple[NonNegativeInt, ...]
    data_offsets: tuple[NonNegativeInt, NonNegativeInt]


_TENSORS = TypeAdapter(dict[str, Tensor])


def read_length(opened: BinaryIO) -> int:
    """Read how many bytes the JSON object has, which begins where the file then stands."""
    return int.from_bytes(opened.read(_LENGTH_BYTES), "little")


def read_header(
    opened: BinaryIO, max_bytes: int = FORMAT_MAX_BYTES
) -> tuple[dict[str, Tensor], int]:
    """Read the tensors by name, and the byte of the file that `data_offsets` count from.

    Raises:
        ValueError: this is no such header, or a longer one.
    """
    length = read_length(opened)
    if length > max_bytes:
        raise ValueError(f"a header of {length} bytes, more than {max_bytes}")
    header = pydantic_core.from_json(opened.read(length))
    if isinstance(header, dict):
        header.pop("__metadata__", None)
    return _TENSORS.validate_python(header), _LENGTH_BYTES + length
