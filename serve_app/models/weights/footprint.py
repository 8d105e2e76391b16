"""`weight_bytes`: how much memory a model will take, from the headers of its files."""

import math
from collections.abc import Iterator
from pathlib import Path

from serve_app.models.entry import HubSource, ModelEntry, Source
from serve_app.models.weights.folder import (
    INDEX,
    LEFT_OUT,
    choose_variant,
    components,
    weight_files,
)
from serve_app.models.weights.header import FORMAT_MAX_BYTES, read_header

__all__ = ["loaded_files", "weight_bytes"]

_ITEM_BYTES = {"auto": 4, "float32": 4, "float16": 2, "bfloat16": 2}
_FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
# By the field that names a folder: which of its parts are loaded.
_LENT = {"base": ("vae", "text_encoder"), "text_encoders": ("text_encoder",), "base_config": ()}
_COPIES = "model_ema."  # of single files; nothing loads them


def weight_bytes(entry: ModelEntry, max_header_bytes: int = FORMAT_MAX_BYTES) -> int:
    """Bytes of a model's weights in the entry's dtype; 0: no safetensors files are here (yet).

    Of `auto`, which only the device of a replica decides, the larger one counts.

    Reads headers only. Where a base stands beside a single file, its VAE and text encoders count
    too, also those that the file does not lack.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is no safetensors file, or its header is longer than allowed.
    """
    item_bytes = _ITEM_BYTES[entry.dtype]
    return sum(_file_bytes(file, item_bytes, max_header_bytes) for file in loaded_files(entry))


def loaded_files(entry: ModelEntry) -> Iterator[Path]:
    """List the weight files of the source, and of what the entry names besides."""
    yield from _files(entry.source, entry.variant)
    for name, source in entry.parts.items():
        for file in _files(source):
            assert isinstance(source, Path), "others have no files here"
            part = file.relative_to(source).parts[0] if source.is_dir() else ""
            if name == "vae" or part.startswith(_LENT[name]):
                yield file


def _files(source: Source, variant: str | None = None) -> Iterator[Path]:
    """List the files that the loader reads; none of a hub, whose place is known once it is here."""
    if isinstance(source, HubSource):
        return
    if source.is_file():
        yield source
        return
    chosen = choose_variant(source, variant)
    for folder in _components(source):
        yield from weight_files(folder, chosen)


def _components(folder: Path) -> set[Path]:
    if (folder / INDEX).is_file():
        return {folder / name for name in components(folder) if name not in LEFT_OUT}
    parents = {file.parent for file in folder.rglob("*.safetensors")}
    return {parent for parent in parents if parent.name not in LEFT_OUT}


def _file_bytes(file: Path, item_bytes: int, max_header_bytes: int) -> int:
    """Sum up the tensors; floats are converted when they are loaded."""
    with file.open("rb") as opened:
        try:
            tensors = read_header(opened, max_header_bytes).tensors
        except ValueError as exc:
            raise ValueError(f"{file.name} is no safetensors file: {exc}") from exc
    return sum(
        math.prod(tensor.shape) * item_bytes
        if tensor.dtype in _FLOATS
        else tensor.data_offsets[1] - tensor.data_offsets[0]
        for name, tensor in tensors.items()
        if not name.startswith(_COPIES)
    )
