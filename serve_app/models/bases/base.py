"""`Base`: the settings of an architecture, for files that hold nothing but its weights.

`facts.yaml` has what the published architectures are made of. Written as a folder they are what
diffusers calls a config: a pipeline without its weights.
"""

import functools
import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from serve_app.models.bases.vocabulary import clip_vocabulary
from serve_app.models.weights.folder import LEFT_OUT

__all__ = ["BASES", "Base"]

_FACTS = Path(__file__).with_name("facts.yaml")
_FORMAT = 1  # of the folders that are written; another one makes new folders
_MASK_CHANNELS = 5  # the mask, and the latents of the masked picture
_NO_PART = [None, None]

_FILES = {"scheduler": "scheduler_config.json"}

Settings = Mapping[str, Any]  # JSON


@dataclass(frozen=True, slots=True)
class Base:
    """Settings of one architecture.

    family: what the names of diffusers' pipeline classes begin with.
    category: model_category of its models. native_size_px: the side that it was trained at.
    options: of the pipeline. parts: settings of its components, by name.
    """

    family: str
    category: str
    native_size_px: int
    options: Settings
    parts: Mapping[str, Settings]

    def for_inpainting(self) -> "Base":
        """Return the base of a model whose UNet also takes a mask and the masked picture."""
        unet = self.parts["unet"]
        channels = unet["in_channels"] + _MASK_CHANNELS
        return replace(self, parts={**self.parts, "unet": {**unet, "in_channels": channels}})

    def write(self, cache_dir: Path) -> Path:
        """Return the folder of these settings, made unless it is there.

        Parts whose vocabulary no package ships (T5) are left out.

        Raises:
            VocabularyMissing: the package that ships CLIP's is not installed.
            OSError: it cannot be written.
        """
        facts = json.dumps(
            [_FORMAT, self.family, dict(self.options), dict(self.parts)], sort_keys=True
        )
        folder = cache_dir / "bases" / hashlib.sha256(facts.encode()).hexdigest()[:16]
        if not (folder / "model_index.json").exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            unfinished = Path(tempfile.mkdtemp(dir=folder.parent))
            try:
                self._write(unfinished)
                unfinished.chmod(0o755)
                _rename(unfinished, folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
        return folder

    def _write(self, folder: Path) -> None:
        index: dict[str, object] = {"_class_name": f"{self.family}Pipeline", **self.options}
        index |= dict.fromkeys(LEFT_OUT, _NO_PART)
        for name, settings in self.parts.items():
            index[name] = _class_of(settings)
            if index[name] == _NO_PART:
                continue
            (folder / name).mkdir()
            if "vocabulary" in settings:
                _write_tokenizer(folder / name, settings)
            else:
                _dump(folder / name / _FILES.get(name, "config.json"), settings)
        _dump(folder / "model_index.json", index)


def _class_of(settings: Settings) -> list[str | None]:
    """Name library and class of a component, as model_index.json does."""
    if settings.get("vocabulary") == "clip":
        return ["transformers", "CLIPTokenizer"]
    if "t5" in (settings.get("vocabulary"), settings.get("model_type")):
        return [None, None]
    if "architectures" in settings:
        return ["transformers", settings["architectures"][0]]
    return ["diffusers", settings["_class_name"]]


def _write_tokenizer(folder: Path, settings: Settings) -> None:
    vocabulary, merges = clip_vocabulary()
    _dump(folder / "vocab.json", vocabulary)
    lines = ["#version: 0.2", *merges]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": settings["pad_token"],
    }
    options = {"tokenizer_class": "CLIPTokenizer", "model_max_length": settings["model_max_length"]}
    _dump(folder / "tokenizer_config.json", options | special)
    _dump(folder / "special_tokens_map.json", special)


def _dump(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def _rename(unfinished: Path, folder: Path) -> None:
    try:
        unfinished.rename(folder)
    except OSError:
        if (folder / "model_index.json").exists():
            return  # another process was faster
        shutil.rmtree(folder)  # somebody took parts of it away
        unfinished.rename(folder)


@functools.cache
def _facts() -> Mapping[str, Base]:
    facts = yaml.safe_load(_FACTS.read_text(encoding="utf-8"))
    return {
        name: Base(
            family=told["family"],
            category=told["category"],
            native_size_px=told["native_size_px"],
            options=told.get("options", {}),
            parts={part: facts[_kind(part)][like] for part, like in told["parts"].items()},
        )
        for name, told in facts["base"].items()
    }


def _kind(part: str) -> str:
    """Name the table of a component: `text_encoder_2` is a text encoder."""
    return part.rstrip("_23")


BASES: Mapping[str, Base] = _facts()
