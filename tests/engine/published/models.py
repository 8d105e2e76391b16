"""Small models of each family, as stock diffusers has them.

They are as wide as the published ones where that tells what a file is (the text that the denoiser
attends to), and as small as can be elsewhere.
"""

import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import diffusers
import torch
import transformers
from diffusers import DiffusionPipeline
from diffusers.loaders import single_file_utils

from serve_app.models.bases import base
from serve_app.models.bases.base import BASES, Base
from serve_app.testing.checkpoints import byte_tokenizer

__all__ = ["FAMILIES", "Models", "small_architectures"]

Settings = Mapping[str, Any]

FAMILIES = (
    "sd1",
    "sd1-inpainting",
    "sd2",
    "sdxl",
    "sdxl-inpainting",
    "sd3-medium",
    "sd3.5-medium",
    "flux-dev",
    "flux-schnell",
)
_FLUX_WIDTH = 128  # in place of 3072
_PLAIN, _CROSS = "{}Block2D", "CrossAttn{}Block2D"


def _blocks(*kinds: str) -> dict[str, list[str]]:
    return {
        "down_block_types": [kind.format("Down") for kind in kinds],
        "up_block_types": [kind.format("Up") for kind in reversed(kinds)],
    }


_UNET = {"block_out_channels": [8, 16], "norm_num_groups": 4, "sample_size": 8}
_SMALL: Mapping[str, Settings] = {
    "sd1": {**_UNET, **_blocks(_CROSS, _PLAIN), "attention_head_dim": 4},
    "sd2": {**_UNET, **_blocks(_CROSS, _PLAIN), "attention_head_dim": [2, 4]},
    "sdxl": {
        **_UNET,
        **_blocks(_PLAIN, _CROSS),
        "attention_head_dim": [2, 4],
        "transformer_layers_per_block": [1, 2],
    },
    "sd3": {
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "caption_projection_dim": 16,
        "pos_embed_max_size": 16,
        "sample_size": 16,
    },
    "flux": {
        "num_layers": 1,
        "num_single_layers": 1,
        "num_attention_heads": 1,
    },
    "vae": {
        "block_out_channels": [8, 8, 8, 8],
        "norm_num_groups": 4,
        "layers_per_block": 1,
        "sample_size": 64,
    },
    "clip": {
        "vocab_size": 514,
        "num_hidden_layers": 2,
        "intermediate_size": 32,
        "num_attention_heads": 4,
    },
    "t5": {"vocab_size": 514, "num_layers": 1, "num_heads": 2, "d_kv": 8, "d_ff": 16},
}


def _small(name: str) -> Base:
    told = BASES[name]

    def shrunk(part: str, settings: Settings) -> Settings:
        kind = {"unet": name.partition("-")[0], "vae": "vae"}.get(part)
        if part == "transformer":
            kind = "flux" if "flux" in name else "sd3"
        if part.startswith("text_encoder"):
            kind = "t5" if settings["model_type"] == "t5" else "clip"
        return {**settings, **_SMALL[kind]} if kind else settings

    parts = {part: shrunk(part, settings) for part, settings in told.parts.items()}
    return Base(told.family, told.category, told.native_size_px, told.options, parts)


@contextmanager
def small_architectures() -> Iterator[None]:
    """Have the published architectures small, and letters for CLIP's vocabulary, for a while."""
    small = {name: _small(name) for name in BASES}
    letters = byte_tokenizer().get_vocab()
    with ExitStack() as changes:
        changes.enter_context(patch.dict(BASES, small))
        changes.enter_context(patch.object(base, "clip_vocabulary", lambda: (letters, [])))
        name = "convert_flux_transformer_checkpoint_to_diffusers"
        changes.enter_context(patch.object(single_file_utils, name, _narrow(name)))
        yield


def _narrow(name: str) -> Any:
    """Return stock's converter of FLUX.1 for a narrower model; it has the width as a constant."""
    source = inspect.getsource(getattr(single_file_utils, name))
    assert source.count("inner_dim = 3072") == 1
    made: dict[str, Any] = dict(vars(single_file_utils))
    exec(source.replace("inner_dim = 3072", f"inner_dim = {_FLUX_WIDTH}"), made)
    return made[name]


class Models:
    """Random pipelines of stock diffusers, each made once; only while architectures are small."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._made: dict[str, DiffusionPipeline] = {}

    def stock(self, name: str) -> DiffusionPipeline:
        """Return the pipeline of a family; SD3 and FLUX.1 with T5."""
        if name not in self._made:
            torch.manual_seed(FAMILIES.index(name))
            self._made[name] = self._make(name)
        return self._made[name]

    def folder(self, name: str) -> Path:
        """Return the folder of a pipeline, as diffusers saves it."""
        folder = self._root / name
        if not folder.exists():
            self.stock(name).save_pretrained(folder)
        return folder

    def _make(self, name: str) -> DiffusionPipeline:
        kind, _, variant = name.partition("-")
        is_inpainting = variant == "inpainting"
        known = BASES[kind if is_inpainting else name]
        settings = (known.for_inpainting() if is_inpainting else known).write(self._root)
        parts = {}
        for part, said in known.parts.items():
            if "vocabulary" in said:
                if said["vocabulary"] == "t5":
                    parts[part] = byte_tokenizer()
            elif part.startswith("text_encoder"):
                cls = getattr(transformers, said["architectures"][0])
                parts[part] = cls(cls.config_class(**said))
            elif part != "scheduler":
                config = json.loads((settings / part / "config.json").read_text())
                parts[part] = getattr(diffusers, said["_class_name"]).from_config(config)
        cls = getattr(diffusers, f"{known.family}Pipeline")
        unused = dict.fromkeys(("safety_checker", "feature_extractor", "image_encoder"))
        accepted = inspect.signature(cls.__init__).parameters
        unused = {part: None for part in unused if part in accepted}
        pipeline = cls.from_pretrained(settings, **parts, **unused)
        pipeline.set_progress_bar_config(disable=True)
        if known.family == "StableDiffusion3":  # its makers do not project what this one says
            torch.nn.init.eye_(pipeline.text_encoder.text_projection.weight)
        for part in pipeline.components.values():
            if isinstance(part, torch.nn.Module):
                part.eval().requires_grad_(False)
        return pipeline
