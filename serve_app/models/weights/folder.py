"""A folder in diffusers' form: its components, and which of their weight files are loaded.

`model.fp16.safetensors` is the variant fp16 of `model.safetensors`. Of each component the whole
files are loaded; where one has none, those of a variant, and then of all components that have it.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import pydantic_core

from serve_app.models.weights.files import Refused

__all__ = [
    "INDEX",
    "LEFT_OUT",
    "choose_variant",
    "components",
    "file_variants",
    "read_settings",
    "weight_files",
]

INDEX = "model_index.json"
LEFT_OUT = ("safety_checker", "feature_extractor", "image_encoder")  # of what is loaded

_MAX_SETTINGS_BYTES = 1 << 20
_NO_CLASS: tuple[list[object], ...] = ([], [None])  # of a component that a pipeline lacks
# `diffusion_pytorch_model.fp16-00001-of-00002.safetensors`
_FILE = re.compile(
    r"(?P<stem>[^.]+?)(\.(?P<variant>[^.]+?))?(-\d{5}-of-\d{5})?\.safetensors", re.IGNORECASE
)
_PREFERRED = ("fp16", "bf16")  # to others, of which some are no copies: `non_ema`


def read_settings(file: Path) -> Mapping[str, object]:
    """Read a configuration; empty where there is none that can be read.

    Raises:
        PermissionError: it may not be read.
    """
    try:
        with file.open("rb") as opened:
            said = pydantic_core.from_json(opened.read(_MAX_SETTINGS_BYTES))
    except (ValueError, FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return {}
    return said if isinstance(said, dict) else {}


def components(folder: Path) -> list[str]:
    """Name the components that a pipeline's folder has, those that are left out among them."""
    index = read_settings(folder / INDEX).items()
    named = [
        name for name, value in index if isinstance(value, list) and value[:1] not in _NO_CLASS
    ]
    return [name for name in named if Path(name).name == name]  # and leads nowhere else


def choose_variant(folder: Path, wanted: str | None = None) -> str | None:
    """Choose the variant whose files are loaded of a folder; None: the whole ones.

    Args:
        folder: of a pipeline, or of one component.
        wanted: by the entry.

    Raises:
        Refused: no component has the variant, or one has neither whole files nor those.
    """
    parts = [files for name, files in _weighty(folder).items() if name not in LEFT_OUT]
    here = {variant for files in parts for variant in files if variant}
    if wanted is not None:
        if here and wanted not in here:
            raise Refused(f"found files of the variants {_listed(here)}, expected {wanted}")
        if parts and not here:
            raise Refused(f"found no files of variants, expected {wanted}")
    lacking = [files for files in parts if "" not in files]
    if wanted is None and not lacking:
        return None
    for variant in [*_PREFERRED, *sorted(here)] if wanted is None else [wanted]:
        if all(variant in files for files in lacking):
            return variant
    raise Refused(
        f"the variants {_listed(here)} are not complete: no one of them, with the whole files, "
        "gives every component"
    )


def _listed(variants: Iterable[str]) -> str:
    return ", ".join(sorted(variants))


def _weighty(folder: Path) -> dict[str, dict[str, list[Path]]]:
    """Return the weight files of each component that has any, by variant."""
    names = components(folder) if (folder / INDEX).is_file() else ["."]
    found = {name: _by_variant(folder / name) for name in names}
    return {name: files for name, files in found.items() if files}


def weight_files(component: Path, variant: str | None) -> list[Path]:
    """List the files of a component that are loaded: the variant's where it has any."""
    by_variant = _by_variant(component)
    return by_variant.get(variant or "") or by_variant.get("", [])


def file_variants(folder: Path) -> set[str]:
    """Name the variants of which a pipeline or a component has files."""
    return {variant for files in _weighty(folder).values() for variant in files if variant}


def _by_variant(component: Path) -> dict[str, list[Path]]:
    """Sort the weight files of a component by variant; the whole ones are that of no name."""
    found: dict[str, list[Path]] = {}
    for file in sorted(component.glob("*.safetensors")):
        if match := _FILE.fullmatch(file.name):
            found.setdefault(match["variant"] or "", []).append(file)
    return found
