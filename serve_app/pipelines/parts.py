"""`named_parts`: components that an entry names in place of those of its source."""

import json
from pathlib import Path

import diffusers
import torch
import transformers
from accelerate import init_empty_weights
from diffusers import AutoencoderKL
from transformers import PreTrainedModel

from serve_app.models import ModelEntry
from serve_app.models.weights.folder import choose_variant, file_variants
from serve_app.pipelines.addons.misfit import Unfit
from serve_app.pipelines.addons.vaes import check_latents
from serve_app.pipelines.conversion import read_vae
from serve_app.pipelines.soundness import check_module

__all__ = ["load_part", "named_parts"]


def named_parts(entry: ModelEntry, settings: Path, dtype: torch.dtype) -> dict[str, object]:
    """Load them; by their names in the pipeline.

    settings: folder of the model's own.

    Raises:
        Unfit: a folder holds no such parts, not all of their weights, or a VAE for other latents.
        OSError: they cannot be read.
    """
    parts: dict[str, object] = {}
    if isinstance(entry.text_encoders, Path):
        folder = entry.text_encoders
        names = [name for name in _index(folder) if name.startswith(("text_encoder", "tokenizer"))]
        if not names:
            raise Unfit("a folder without text encoders", "those of a pipeline in diffusers' form")
        parts |= {name: load_part(folder, name, dtype) for name in names}
    if isinstance(entry.vae, Path):
        parts["vae"] = _vae(entry.vae, settings / "vae", dtype)
    return parts


def _vae(source: Path, settings: Path, dtype: torch.dtype) -> AutoencoderKL:
    """Load a folder, or a single file, which is taken to have the settings of the model's own."""
    with init_empty_weights():
        own = AutoencoderKL.from_config(AutoencoderKL.load_config(settings))
    if source.is_file():
        return read_vae(source, own.config).to(dtype)
    variant = choose_variant(source)
    vae = AutoencoderKL.from_pretrained(source, dtype=dtype, variant=variant, local_files_only=True)
    check_latents(vae.config, own.config)
    return vae


def _index(folder: Path) -> dict[str, list[str]]:
    """Return library and class of each component that a pipeline's folder has."""
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    return {name: value for name, value in index.items() if isinstance(value, list) and value[0]}


def load_part(folder: Path, name: str, dtype: torch.dtype) -> object:
    """Load one component of a pipeline's folder.

    Raises:
        Unfit: weights of it are in no file.
        OSError: it cannot be read.
    """
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
