"""Looks for NaN and infinities in safetensors files: by their bits, a block at a time, no torch."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

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
        header_bytes = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(header_bytes))
    start = 8 + header_bytes
    for name, about in header.items():
        if name == "__metadata__" or about["dtype"] not in _EXPONENTS:
            continue
        exponent = _EXPONENTS[about["dtype"]]
        begin, end = (start + offset for offset in about["data_offsets"])
        blocks = _blocks(file, begin, end, exponent.dtype)
        if any(((block & exponent) == exponent).any() for block in blocks):
            return str(name)
    return None


def _blocks(
    file: Path, begin: int, end: int, dtype: np.dtype[np.unsignedinteger]
) -> Iterator[npt.NDArray[np.unsignedinteger]]:
    with file.open("rb") as opened:
        opened.seek(begin)
        while begin < end:
            size = min(_BLOCK, end - begin)
            yield np.frombuffer(opened.read(size), dtype)
            begin += size
