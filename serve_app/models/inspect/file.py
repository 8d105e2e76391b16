"""Reads the header of one file of weights, or says why there is none that may be read."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from serve_app.config import CatalogueConfig
from serve_app.models.inspect.adapters import ReadTensor
from serve_app.models.weights.files import Refused
from serve_app.models.weights.header import (
    FORMAT_MAX_BYTES,
    Header,
    Tensor,
    TooManyTensors,
    read_header,
)

__all__ = ["Fault", "OpenFile", "Unreadable", "open_weights", "read_weights"]

_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle")
_PICKLED = (
    "is a pickle, which runs code when it is loaded; "
    "`dreamserve models convert` makes safetensors of it"
)
_MIN_BYTES = 8


class Fault(StrEnum):
    """Why nothing can be said of a file."""

    MISSING = "missing"
    NO_PERMISSION = "no_permission"
    NO_FILE = "no_file"  # a folder, a socket, a device
    PICKLE = "pickle"
    FOREIGN = "foreign"  # of another format, whatever its name says
    TRUNCATED = "truncated"
    HEADER_TOO_LARGE = "header_too_large"
    TOO_MANY_TENSORS = "too_many_tensors"
    NO_WEIGHTS = "no_weights"  # of a folder


class Unreadable(Refused):
    """A file of which nothing can be said: `Unreadable(fault, reason)`, for the operator."""

    def __init__(self, fault: Fault, reason: str) -> None:
        super().__init__(reason)
        self.fault = fault


# How files begin that go by a wrong name.
_BEGINNINGS = (
    (b"PK\x03\x04", Fault.PICKLE, _PICKLED),
    (b"\x80\x02", Fault.PICKLE, _PICKLED),
    (b"\x80\x04", Fault.PICKLE, _PICKLED),
    (b"GGUF", Fault.FOREIGN, "is a GGUF file, which is not served; get it as safetensors"),
    (b"version ", Fault.FOREIGN, "is a Git LFS pointer; the weights were not downloaded"),
    (b"<", Fault.FOREIGN, "is a web page; the download needs a login or another link"),
    (b"{", Fault.FOREIGN, "is JSON; the download needs a login or another link"),
)


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file while it is open. read: gives the bytes of a tensor."""

    header: Header
    read: ReadTensor


def read_weights(file: Path, config: CatalogueConfig) -> Header:
    """Read the header of a safetensors file.

    Raises:
        Unreadable: it has none that may be read.
    """
    with open_weights(file, config) as opened:
        return opened.header


@contextmanager
def open_weights(file: Path, config: CatalogueConfig) -> Iterator[OpenFile]:
    """Open a safetensors file, once, and read its header; pickles are not opened.

    Raises:
        Unreadable: it has none that may be read.
    """
    if file.suffix.lower() in _PICKLES:
        raise Unreadable(Fault.PICKLE, f"{file.name} {_PICKLED}")
    try:
        if not file.exists():
            raise Unreadable(Fault.MISSING, f"{file.name} does not exist")
        if not file.is_file():  # a pipe would be waited for
            raise Unreadable(Fault.NO_FILE, f"{file.name} is not a plain file")
        with file.open("rb") as stream:
            header = _header(file, stream, config)

            def read(tensor: Tensor) -> bytes:
                begin, end = tensor.data_offsets
                stream.seek(header.start + begin)
                return stream.read(end - begin)

            yield OpenFile(header, read)
    except PermissionError as exc:
        raise Unreadable(Fault.NO_PERMISSION, f"{file.name} may not be read") from exc
    except OSError as exc:
        raise Unreadable(Fault.NO_FILE, f"{file.name} cannot be read: {exc.strerror}") from exc


def _header(file: Path, stream: BinaryIO, config: CatalogueConfig) -> Header:
    size = file.stat().st_size
    _check_beginning(file.name, stream, size, config)
    try:
        header = read_header(stream, max_tensors=config.max_tensors)
    except TooManyTensors as exc:
        limit = f"catalogue.max_tensors is {config.max_tensors}"
        reason = f"{file.name} has {exc.number} tensors; {limit}"
        raise Unreadable(Fault.TOO_MANY_TENSORS, reason) from exc
    except ValueError as exc:
        reason = f"{file.name} is not a safetensors file: its header cannot be read"
        raise Unreadable(Fault.FOREIGN, reason) from exc
    if header.file_bytes > size:
        raise Unreadable(
            Fault.TRUNCATED,
            f"{file.name} is truncated: it has {size} bytes, and its header says "
            f"{header.file_bytes}",
        )
    return header


def _check_beginning(name: str, stream: BinaryIO, size: int, config: CatalogueConfig) -> None:
    """Judge the length of the header before any of it is read; the stream stays at its start."""
    start = stream.read(_MIN_BYTES)
    stream.seek(0)
    length = int.from_bytes(start, "little")
    if _MIN_BYTES + length <= size and length > config.max_header_bytes:
        limit = f"catalogue.max_header_bytes is {config.max_header_bytes}"
        raise Unreadable(Fault.HEADER_TOO_LARGE, f"{name} has a header of {length} bytes; {limit}")
    if len(start) == _MIN_BYTES and _MIN_BYTES + length <= size:
        return
    for beginning, fault, reason in _BEGINNINGS:
        if start.startswith(beginning):
            raise Unreadable(fault, f"{name} {reason}")
    if size and length <= FORMAT_MAX_BYTES:
        raise Unreadable(Fault.TRUNCATED, f"{name} is truncated: it ends within its header")
    raise Unreadable(Fault.FOREIGN, f"{name} is not a safetensors file")
