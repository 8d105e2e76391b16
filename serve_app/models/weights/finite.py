"""Looks for NaN and infinities in safetensors files: by their bits, a block at a time, no torch."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from serve_app.models.weights.header import read_header

__all__ = ["first_non_finite"]

# A float is NaN or infinite when all bits of its exponent are set: IEEE 754, 3.4.
_EXPONENTS: dict[str, np.unsignedinteger] = {
    "F64": np.uint64(0x7FF0_0000_0000_0000),
    "F32": np.uint32(0x7F80_0000),
    "F16": np.uint16(0x7C00),
    "BF16": np.uint16(0x7F80),
}
_BLOCK = 1 << 24  # bytes


def first_non_finite(file: Path) -> str | None:
    """Name the first tensor that holds one; None when all are finite. Other types are skipped.

    The file's header must have been checked (`files.check_headers`).
    """
    with file.open("rb") as opened:
        header = read_header(opened)
        for name, tensor in header.tensors.items():
            exponent = _EXPONENTS.get(tensor.dtype)
            if exponent is None:
                continue
            begin, end = tensor.data_offsets
            blocks = _blocks(opened, header.start + begin, header.start + end, exponent.dtype)
            if any(((block & exponent) == exponent).any() for block in blocks):
                return name
    return None


def _blocks(
    opened: BinaryIO, begin: int, end: int, dtype: np.dtype[np.unsignedinteger]
) -> Iterator[npt.NDArray[np.unsignedinteger]]:
    opened.seek(begin)
    for start in range(begin, end, _BLOCK):
        yield np.frombuffer(opened.read(min(_BLOCK, end - start)), dtype)
