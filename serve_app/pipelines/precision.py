"""`with_dtype`: the precision that an entry leaves to the device."""

import torch

from serve_app.models import ModelEntry

__all__ = ["device_of", "with_dtype"]


def device_of(name: str) -> torch.device:
    """Return the device of a setting; auto: a GPU, where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def with_dtype(entry: ModelEntry, device: torch.device) -> ModelEntry:
    """Decide on `auto`: half precision on a GPU, float32 elsewhere.

    Transformers and T5 were trained in bfloat16, whose range they need, so they get it where the
    GPU computes in it; UNets get float16.
    """
    if entry.dtype != "auto":
        return entry
    dtype = "float32"
    if device.type == "cuda":
        has_range = torch.cuda.is_bf16_supported(including_emulation=False)
        dtype = "float16" if entry.has_unet or not has_range else "bfloat16"
    return entry.model_copy(update={"dtype": dtype})
