"""`read_components`: the modules of a pipeline out of one file, in whichever layout it is packed.

Here a file is sorted into components, so that each layout that `models.inspect` knows comes to the
libraries in the one form that they take. What they would leave out, or draw at random, is refused.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import diffusers
import structlog
import torch
import transformers
from accelerate import init_empty_weights
from diffusers import ModelMixin
from diffusers.loaders import single_file_utils as stock
from transformers import PreTrainedModel, T5EncoderModel

from serve_app import errors
from serve_app.models import ModelEntry
from serve_app.models.weights.components import T5, beginnings_of, component_of, held
from serve_app.pipelines.addons.misfit import Unfit
from serve_app.pipelines.conversion import module_of, taken
from serve_app.pipelines.parts import load_part
from serve_app.pipelines.soundness import check_finite, settle
from serve_app.pipelines.tensor_reader import Places, TensorReader, Tensors, places

__all__ = ["read_components"]

_log = structlog.get_logger()

_CLIP_L = "text_encoders.clip_l.transformer."
_OPEN_CLIP = ".model."  # what the beginnings of text encoders of open_clip end with
_TEXT = "text_model."
_PROJECTION = "text_projection.weight"
_UNUSED = {"embeddings.position_ids", "logit_scale", "text_projection"}  # of text encoders


def read_components(
    entry: ModelEntry,
    settings: Path,
    index: Mapping[str, Sequence[str]],
    dtype: torch.dtype,
    reader: TensorReader,
) -> dict[str, object]:
    """Read components on the CPU, in the order of the file.

    What the file lacks comes from the base that its entry names.

    Args:
        settings: folder with their configurations; where the entry names a base, that one.
        index: library and class of each component that is wanted.

    Raises:
        Unfit: nothing has one, or the file holds more or less of it than its configuration says,
            or NaN.
        OSError: it cannot be read.
        SafetensorError: it is truncated or no safetensors file.
    """
    with places(entry.path) as found:
        there = held(found, index)
        lacking = [name for name in index if name not in there]
        if lacking and settings != entry.base:
            wanted = "one with all parts, or base, or vae and text_encoders in its entry"
            raise Unfit(f"a file without {' and '.join(lacking)}", wanted)
        if entry.text_encoders is None:
            _tell_left_out(entry.id, found, index)
        parts = {name: _lent(name, settings, dtype, reader) for name in lacking}
        order = [component_of(name, index) for name in found]
        for name in sorted(there, key=lambda name: order.index(name) if name in order else 0):
            parts[name] = _read(found, name, index[name][1], settings / name, dtype, reader)
        return parts


def _lent(name: str, settings: Path, dtype: torch.dtype, reader: TensorReader) -> object:
    part = load_part(settings, name, dtype)
    if reader.copies and isinstance(part, torch.nn.Module):
        settle(name, part, torch.device("cpu"), channels_last=reader.channels_last)
    return part


def _tell_left_out(model_id: str, names: Iterable[str], index: Mapping[str, Sequence[str]]) -> None:
    """Log that a file has T5 and its settings do not, so that prompts are read without it."""
    begins = beginnings_of("", T5)[0]
    is_there = any(name.startswith(begins) for name in names)
    if is_there and not any(T5 in value for value in index.values()):
        way = "name a folder with T5 and its vocabulary as base_config, base or text_encoders"
        _log.warning("t5_left_out", model_id=model_id, way_out=way)


def _read(
    found: Places,
    name: str,
    class_name: str,
    settings: Path,
    dtype: torch.dtype,
    reader: TensorReader,
) -> object:
    own, beginning = taken(found, beginnings_of(name, class_name))
    if hasattr(transformers, class_name):
        encoder: type[PreTrainedModel] = getattr(transformers, class_name)
        tensors = reader.tensors(name, own)
        module = _of_transformers(encoder, tensors, beginning, settings, dtype)
        if reader.copies:
            check_finite(name, module)  # in the dtype
        return module
    cls: type[ModelMixin] = getattr(diffusers, class_name)
    # A denoiser alone may have no beginning; marks of one number may stand beside it.
    alone = {n: place for n, place in found.items() if math.prod(place.shape) > 1 or "." in n}
    module = module_of(cls, reader.tensors(name, own or alone, dtype), cls.load_config(settings))
    module.to(dtype)
    return module


def _of_transformers(
    cls: type[PreTrainedModel],
    tensors: Tensors,
    beginning: str,
    settings: Path,
    dtype: torch.dtype,
) -> PreTrainedModel:
    """Read tensors by transformers: it ties T5's words, and keeps in float32 what has to be."""
    config = cls.config_class.from_pretrained(settings, local_files_only=True)
    if beginning.endswith(_OPEN_CLIP):
        with init_empty_weights():
            model = cls(config)
        prefixed = {beginning + name: tensor for name, tensor in tensors.items()}
        tensors = stock.convert_open_clip_checkpoint(model, prefixed, prefix=beginning)
    if cls is not T5EncoderModel:
        tensors = _in_clip_names(tensors, beginning)
    loaded, info = cls.from_pretrained(
        None,
        config=config,
        state_dict=tensors,
        dtype=dtype,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # told below
    )
    _check_info(info)
    return loaded


def _in_clip_names(tensors: Tensors, beginning: str) -> Tensors:
    """Rename layers as transformers 4 did, whose names later versions read too."""
    named = {
        name if name == _PROJECTION else _TEXT + name.removeprefix(_TEXT): tensor
        for name, tensor in tensors.items()
        if name.removeprefix(_TEXT) not in _UNUSED
    }
    if beginning == _CLIP_L:  # Stable Diffusion 3 does not project what this one says
        width = named[f"{_TEXT}final_layer_norm.weight"].shape[0]
        named[_PROJECTION] = torch.eye(width)
    return named


def _check_info(info: Mapping[str, Iterable[object]]) -> None:
    for kind in ("missing_keys", "mismatched_keys"):
        if found := sorted(map(str, info[kind])):
            raise Unfit(f"{kind.replace('_', ' ')}: {errors.echoed(found[0])}", "all tensors")
    strange = {str(name) for name in info["unexpected_keys"]} - {_PROJECTION}
    if strange:
        raise Unfit(f"{errors.echoed(min(strange))}, which the model lacks", "not it")
