"""`weight_bytes`: how much memory a model will take, told by the headers of its files."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

from serve_app.models.entry import HubSource, ModelEntry, Source

__all__ = ["weight_bytes"]

_ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
_FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
_MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors format
_UNUSED = ("safety_checker", "feature_extractor", "image_encoder")  # the loader leaves them out


def weight_bytes(entry: ModelEntry) -> int:
    """Bytes of a model's weights in the entry's dtype; 0: no safetensors files are here (yet).

    Reads headers only.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is no safetensors file.
    """
    return sum(_file_bytes(file, _ITEM_BYTES[entry.dtype]) for file in _files(entry.source))


def _files(source: Source) -> Iterator[Path]:
    """The files that the loader reads; of a folder with variants, the whole ones."""
    if isinstance(source, HubSource):
        return  # where it will be is known when it is fetched
    if source.is_file():
        yield source
        return
    for file in source.rglob("*.safetensors"):
        stem, *variant, _ = file.name.split(".")
        has_twin = bool(variant) and file.with_name(f"{stem}.safetensors").exists()
        if not has_twin and not set(_UNUSED) & set(file.relative_to(source).parts):
            yield file


def _file_bytes(file: Path, item_bytes: int) -> int:
    """Sum up the tensors; floats are converted when they are loaded.

    Source: the safetensors format, 8 bytes of little-endian length and a JSON object.
    """
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > _MAX_HEADER_BYTES:
            raise ValueError(f"{file.name} is no safetensors file")
        tensors = json.loads(opened.read(length))
    tensors.pop("__metadata__", None)
    return sum(
        math.prod(tensor["shape"]) * item_bytes
        if tensor["dtype"] in _FLOATS
        else tensor["data_offsets"][1] - tensor["data_offsets"][0]
        for tensor in tensors.values()
    )
