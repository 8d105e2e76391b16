"""`weight_bytes`: how much memory a model will take, from the headers of its files."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

from serve_app.models.entry import HubSource, ModelEntry, Source
from serve_app.models.weights.components import T5, beginnings_of
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
_COPIES: tuple[str, ...] = ("model_ema.",)  # of single files; nothing loads them
_TEXTS = ("text_encoder", "text_encoder_2", "text_encoder_3")


def weight_bytes(entry: ModelEntry, max_header_bytes: int = FORMAT_MAX_BYTES) -> int:
    """Bytes of a model's weights in the entry's dtype; 0: no safetensors files are here (yet).

    Of `auto`, which only the device of a replica decides, the larger one counts.

    Reads headers only. What a single file holds and nothing reads does not count. Where a base
    stands beside it, its VAE and text encoders count too, also those that the file does not lack.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is not a safetensors file, or its header is longer than allowed.
    """
    item_bytes = _ITEM_BYTES[entry.dtype]
    own, unread = _files(entry.source, entry.variant), _unread(entry)
    return sum(_file_bytes(file, item_bytes, max_header_bytes, unread) for file in own) + sum(
        _file_bytes(file, item_bytes, max_header_bytes, _COPIES) for file in _lent(entry)
    )


def loaded_files(entry: ModelEntry) -> Iterator[Path]:
    """List the weight files of the source, and of what the entry names besides."""
    yield from _files(entry.source, entry.variant)
    yield from _lent(entry)


def _unread(entry: ModelEntry) -> tuple[str, ...]:
    """Return what the names begin with of tensors of a single file that nothing reads."""
    if not isinstance(entry.source, Path) or not entry.source.is_file():
        return _COPIES
    unread = _COPIES
    if entry.vae is not None:
        unread += beginnings_of("vae", "")
    if entry.text_encoders is not None:
        unread += tuple(start for name in _TEXTS for start in beginnings_of(name, ""))
    if entry.text_encoders is not None or not _reads_t5(entry):
        unread += beginnings_of("", T5)[:1]
    return unread


def _reads_t5(entry: ModelEntry) -> bool:
    """Whether its settings have T5; those that ship with dreamserve do not."""
    folder = entry.base or entry.base_config
    index = folder / "model_index.json" if isinstance(folder, Path) else None
    if index is None or not index.is_file():
        return False
    settings = json.loads(index.read_bytes()).values()
    return any(isinstance(value, list) and T5 in value for value in settings)


def _lent(entry: ModelEntry) -> Iterator[Path]:
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


def _file_bytes(file: Path, item_bytes: int, max_header_bytes: int, unread: tuple[str, ...]) -> int:
    """Sum up the tensors; floats are converted when they are loaded."""
    with file.open("rb") as opened:
        try:
            tensors = read_header(opened, max_header_bytes).tensors
        except ValueError as exc:
            raise ValueError(f"{file.name} is not a safetensors file: {exc}") from exc
    return sum(
        math.prod(tensor.shape) * item_bytes
        if tensor.dtype in _FLOATS
        else tensor.data_offsets[1] - tensor.data_offsets[0]
        for name, tensor in tensors.items()
        if not name.startswith(unread)
    )
