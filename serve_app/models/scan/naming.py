"""`id_of` and `title_of`: what a file is called, by its name and, if need be, its folder's."""

import re
import unicodedata
from pathlib import Path

__all__ = ["id_of", "is_generic", "title_of"]

_MAX_LENGTH = 96  # of a `ModelId`
_FOREIGN = re.compile(r"[^a-z0-9._]+")
_EDGES = "-._"
# Names that libraries give to every file, so that the folder has the one that tells.
_GENERIC_FILES = {
    "adapter_model",
    "diffusion_pytorch_model",
    "learned_embeds",
    "model",
    "pytorch_lora_weights",
    "pytorch_model",
}
_GENERIC_FOLDERS = re.compile(r"vae|unet|transformer|text_encoder(_\d)?|image_encoder")
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")


def id_of(name: str) -> str | None:
    """Return an id for a file's name without its ending; None when no letter or digit is left.

    `My LoRA (v1.2) [abc]` becomes `my-lora-v1.2-abc`; accents are left out.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode("ascii")
    made = _FOREIGN.sub("-", plain.lower()).strip(_EDGES)
    return made[:_MAX_LENGTH].rstrip(_EDGES) or None


def is_generic(file_name: str) -> bool:
    """Whether a file has one of the names that libraries give, with a variant or number or not."""
    stem = _SHARD.sub("", file_name.lower().removesuffix(".safetensors"))
    return _SHARD.sub("", stem.partition(".")[0]) in _GENERIC_FILES


def title_of(path: Path) -> str:
    """Return what people would call a file or a folder in diffusers' form.

    `ink/pytorch_lora_weights.safetensors` is `ink`, the folder `sd15/vae` is `sd15 vae`, a
    snapshot of a hub cache goes by its repository.
    """
    if path.parent.name == "snapshots":
        return path.parent.parent.name.rpartition("--")[2]
    if _GENERIC_FOLDERS.fullmatch(path.name.lower()):
        return f"{title_of(path.parent)} {path.name}".strip()
    if path.is_dir():
        return path.name
    return title_of(path.parent) if is_generic(path.name) else path.stem
