"""Loads weights from disk into a stock pipeline. Blocks; needs no network."""

import json
from pathlib import Path

import diffusers
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from serve_app.config import EngineConfig
from serve_app.models import ModelEntry
from serve_app.pipelines.checkpoint import Checkpoint, make_checkpoint
from serve_app.pipelines.families import family_of

__all__ = ["load_checkpoint"]


def load_checkpoint(entry: ModelEntry, config: EngineConfig) -> Checkpoint:
    """Load a model of the catalogue onto the device.

    Raises:
        OSError: no such file, or it is no checkpoint.
        ValueError: an architecture that is not served.
    """
    for logging in (diffusers_logging, transformers_logging):
        logging.disable_progress_bar()
        logging.set_verbosity_error()  # warnings quote prompts, which must not reach a log
    device = _device(config.device)
    dtype: torch.dtype = getattr(torch, entry.dtype)
    base = _load_folder(entry.source, dtype)
    family = family_of(base)
    if family.upcasts_vae and dtype is torch.float16 and base.vae.config.force_upcast:
        base.vae.to(torch.float32)  # its activations overflow in float16
    base.to(device)
    for component in base.components.values():
        if isinstance(component, torch.nn.Module):
            component.eval().requires_grad_(False)
    return make_checkpoint(base, family, {}, ())


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _load_folder(folder: Path, dtype: torch.dtype) -> DiffusionPipeline:
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    cls = getattr(diffusers, index["_class_name"])
    left_out = {
        name: None
        for name in ("safety_checker", "feature_extractor", "image_encoder")
        if name in index  # checked in another deployment, or not used
    }
    return cls.from_pretrained(folder, dtype=dtype, local_files_only=True, **left_out)
