"""`named_parts`: components that an entry names in place of those of its source."""

import json
import sys
from pathlib import Path

import diffusers
import torch
import transformers
from accelerate import init_empty_weights
from diffusers import AutoencoderKL
from transformers import PreTrainedModel

from serve_app.config import CatalogueConfig
from serve_app.models import ModelEntry
from serve_app.models.inspect.inspect import inspect
from serve_app.models.inspect.inspection import Inspection
from serve_app.models.inspect.parts import TEXT_ENCODERS
from serve_app.models.weights.folder import choose_variant, file_variants
from serve_app.models.weights.header import FORMAT_MAX_BYTES
from serve_app.pipelines.addons.misfit import Unfit
from serve_app.pipelines.addons.vaes import check_latents
from serve_app.pipelines.soundness import check_module

__all__ = ["named_parts"]

# The file was held against the operator's limits when it was resolved.
_NO_LIMITS = CatalogueConfig(max_header_bytes=FORMAT_MAX_BYTES, max_tensors=sys.maxsize)


def named_parts(entry: ModelEntry, settings: Path, dtype: torch.dtype) -> dict[str, object]:
    """Load them, and what a single file lacks from its base; by their names in the pipeline.

    settings: folder of the model's own.

    Raises:
        Unfit: a folder holds no such parts, not all of their weights, or a VAE for other latents.
        OSError: they cannot be read.
    """
    parts: dict[str, object] = {}
    if isinstance(entry.base, Path) and entry.path.is_file():
        found = inspect(entry.path, _NO_LIMITS)
        lacking = [name for name in _weighty(entry.base) if not _has(found, entry.base, name)]
        parts |= {name: _load(entry.base, name, dtype) for name in lacking}
    if isinstance(entry.text_encoders, Path):
        folder = entry.text_encoders
        names = [name for name in _index(folder) if name.startswith(("text_encoder", "tokenizer"))]
        if not names:
            raise Unfit("a folder without text encoders", "those of a pipeline in diffusers' form")
        parts |= {name: _load(folder, name, dtype) for name in names}
    if isinstance(entry.vae, Path):
        vae = AutoencoderKL.from_pretrained(
            entry.vae, dtype=dtype, variant=choose_variant(entry.vae), local_files_only=True
        )
        with init_empty_weights():
            own = AutoencoderKL.from_config(AutoencoderKL.load_config(settings / "vae"))
        check_latents(vae.config, own.config)
        parts["vae"] = vae
    return parts


def _index(folder: Path) -> dict[str, list[str]]:
    """Return library and class of each component that a pipeline's folder has."""
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    return {name: value for name, value in index.items() if isinstance(value, list) and value[0]}


def _weighty(base: Path) -> list[str]:
    return [name for name in _index(base) if name == "vae" or name.startswith("text_encoder")]


def _has(found: Inspection, base: Path, name: str) -> bool:
    """Whether a file has a component that its base has too."""
    if name == "vae":
        return found.has_part(name)
    settings = json.loads((base / name / "config.json").read_text(encoding="utf-8"))
    width = settings.get("hidden_size", settings.get("d_model"))
    return found.has_part(TEXT_ENCODERS.get(width, name))


def _load(folder: Path, name: str, dtype: torch.dtype) -> object:
    library, class_name = _index(folder)[name]
    cls = getattr({"transformers": transformers, "diffusers": diffusers}[library], class_name)
    variant = choose_variant(folder)
    options: dict[str, object] = {}
    if issubclass(cls, torch.nn.Module):
        has_it = variant in file_variants(folder / name)
        options = {"dtype": dtype, "variant": variant if has_it else None}
    part: object = cls.from_pretrained(folder / name, local_files_only=True, **options)
    if isinstance(part, PreTrainedModel):
        check_module(name, part, folder / name, variant)
    return part
