"""`inspect`: what a file or folder of weights is, from its headers. Needs no torch."""

from collections.abc import Mapping
from pathlib import Path

from serve_app.config import CatalogueConfig
from serve_app.models.inspect import metadata as said
from serve_app.models.inspect.adapters import (
    adapter_alpha,
    adapter_families,
    adapter_rank,
    naming,
)
from serve_app.models.inspect.file import OpenFile, open_weights
from serve_app.models.inspect.folder import inspect_folder
from serve_app.models.inspect.inspection import Family, FileType, Inspection, Part, Prediction
from serve_app.models.inspect.layout import Families, Layout, first_meaning
from serve_app.models.inspect.layouts import LAYOUTS
from serve_app.models.inspect.names import Names
from serve_app.models.inspect.parts import part_of, parts_of, quantization, text_encoder_name

__all__ = ["BY_FLOW", "inspect"]

BY_FLOW = (Family.SD3, Family.FLUX)  # predict the flow, and nothing else
_OF_SD = {Family.SD1, Family.SD2}  # one VAE for both
_EDM_MARKS = ("edm_mean", "edm_vpred.sigma_max")
_NUM_FIRST = 5
_MAX_LETTERS = 96  # of a key that is shown


def inspect(path: Path, config: CatalogueConfig = CatalogueConfig()) -> Inspection:  # noqa: B008  # frozen
    """Determine what a safetensors file, or a folder of them, is. Reads headers and a few numbers.

    Args:
        path: of a file, or of a folder in diffusers' form.
        config: how large headers may be.

    Raises:
        file.Unreadable: nothing can be said of it, as its `fault` and its text tell.
    """
    if path.is_dir():
        return inspect_folder(path, config, inspect)
    with open_weights(path, config) as opened:
        return _inspected(opened)


def _inspected(opened: OpenFile) -> Inspection:
    names = Names(opened.header.tensors)
    layout = next((row for row in LAYOUTS if row.matches(names)), None)
    if layout is None:
        return _unknown(names)
    if layout.type.is_adapter:
        who = naming(names)
        return _unknown(names) if who is None else _adapter(f"{layout.name}, {who}", layout, opened)
    return _model(layout, names, opened.header.metadata)


def _unknown(names: Names) -> Inspection:
    return Inspection(type=FileType.UNKNOWN, layout="", first_keys=_first(names))


def _adapter(title: str, layout: Layout, opened: OpenFile) -> Inspection:
    metadata = opened.header.metadata
    names = Names(opened.header.tensors)
    families = _narrowed(adapter_families(names), metadata)
    is_transformer = bool(families) and set(families) <= set(BY_FLOW)
    return Inspection(
        type=layout.type,
        layout=title,
        families=families,
        prediction=said.claimed_prediction(metadata),
        zero_snr=said.claimed_zero_snr(metadata),
        parts=parts_of(names.tensors, "denoiser", "transformer" if is_transformer else "unet"),
        rank=adapter_rank(names),
        alpha=adapter_alpha(names, metadata, opened.read),
        name=said.claimed_name(metadata),
        trigger_words=said.triggers(metadata),
        first_keys=_first(names),
    )


def _model(layout: Layout, names: Names, metadata: Mapping[str, str]) -> Inspection:
    """Anything but an adapter."""
    families = layout.families or first_meaning(layout.family_signs, names) or ()
    families = _narrowed(families, metadata)
    if layout.type is FileType.VAE and set(families) & _OF_SD:
        families = tuple(Family(family) for family in Family if family in _OF_SD | set(families))
    return Inspection(
        type=layout.type,
        layout=layout.name,
        families=families,
        variant=_variant(layout, names, metadata),
        channels=_channels(layout, names),
        prediction=_prediction(families, names, metadata) if layout.type.is_model else None,
        zero_snr=True if "ztsnr" in names.tensors else said.claimed_zero_snr(metadata),
        parts=_parts(layout, names),
        quantization=quantization(names),
        num_vectors=_num_vectors(names) if layout.type is FileType.EMBEDDING else None,
        name=said.claimed_name(metadata),
        trigger_words=said.triggers(metadata),
        first_keys=_first(names),
    )


def _parts(layout: Layout, names: Names) -> tuple[Part, ...]:
    tensors = names.tensors
    if not layout.type.is_model:
        return (part_of(text_encoder_name(layout.type, tensors), tensors),)
    denoiser = "transformer" if layout.families else "unet"
    rest = "" if layout.type is FileType.CHECKPOINT else denoiser
    return parts_of(tensors, rest, denoiser)


def _narrowed(families: Families, metadata: Mapping[str, str]) -> Families:
    """Believe the header where shapes leave a choice."""
    claimed = said.claimed_families(metadata)
    if not families:
        return tuple(dict.fromkeys(claimed))
    return tuple(family for family in families if family in claimed) or families


def _variant(layout: Layout, names: Names, metadata: Mapping[str, str]) -> str | None:
    """Return the kind of its family; a dev of Flux may have lost what tells it from schnell."""
    variant = first_meaning(layout.variants, names)
    architecture = metadata.get("modelspec.architecture", "").lower()
    is_dev = variant == "schnell" and architecture.startswith(("flux-1-dev", "flux.1-dev"))
    return "dev without guidance" if is_dev else variant


def _prediction(families: Families, names: Names, metadata: Mapping[str, str]) -> Prediction | None:
    if "v_pred" in names.tensors:
        return Prediction.V
    if any(mark in names.tensors for mark in _EDM_MARKS):
        return Prediction.EDM
    if families and set(families) <= set(BY_FLOW):
        return Prediction.FLOW
    return said.claimed_prediction(metadata)


def _channels(layout: Layout, names: Names) -> int | None:
    if layout.channels is None:
        return None
    pattern, axis, divisor = layout.channels
    size = names.size(pattern, axis)
    return None if size is None else size // divisor


def _num_vectors(names: Names) -> int:
    """An embedding of one token may be a tensor without an axis for tokens."""
    shape = next(iter(names.tensors.values())).shape
    return shape[0] if len(shape) > 1 else 1


def _first(names: Names) -> tuple[str, ...]:
    return tuple(said.tidy(name)[:_MAX_LETTERS] for name in list(names.tensors)[:_NUM_FIRST])
