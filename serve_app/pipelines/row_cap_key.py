"""Which row caps a checkpoint can take over: those of its architecture, device and settings."""

import platform

import torch

from serve_app.config import EngineConfig
from serve_app.engine.row_cap_store import RowCapStore
from serve_app.pipelines.checkpoint import Checkpoint

__all__ = ["row_cap_store"]

_SETTINGS = {"max_rows", "row_growth", "compile", "row_buckets", "channels_last"}


def row_cap_store(checkpoint: Checkpoint, config: EngineConfig) -> RowCapStore | None:
    """Name the file of everything that forward times depend on; none without a cache folder.

    The weights are not part of it: a fine-tuned checkpoint is as fast as the one it was made from,
    so new weights of a model need not be measured again.
    """
    if config.cache_dir is None:
        return None
    denoiser = getattr(checkpoint.base, checkpoint.family.denoiser)
    parameter = next(denoiser.parameters())
    shape = {name: value for name, value in denoiser.config.items() if not name.startswith("_")}
    holds_for = {
        "architecture": [type(denoiser).__name__, shape],
        "dtype": str(parameter.dtype),
        "device": _device_name(parameter.device),
        "torch": torch.__version__,
        "settings": config.model_dump(include=_SETTINGS),
    }
    return RowCapStore(config.cache_dir / "row-caps", holds_for)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.total_memory} bytes"
    return f"{platform.machine()} {device.type}, {torch.get_num_threads()} threads"
