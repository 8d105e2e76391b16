"""The LoRAs of the benchmark: the demo's, and random ones of the same layers and ranks."""

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

__all__ = ["CHECKPOINT", "NAMES", "write_loras"]

_CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
_DEMO = ("heart", "inked")
_NUM_RANDOM = 12

CHECKPOINT = _CHECKPOINTS / "demo"  # the model that they fit
NAMES = (*_DEMO, *(f"random{number}" for number in range(_NUM_RANDOM)))  # the most popular first


def write_loras(folder: Path) -> None:
    """Write all files; a random tensor has the mean and spread of the demo's."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in _DEMO:
        shutil.copy(_CHECKPOINTS / "demo-loras" / f"{name}.safetensors", folder)
    trained = load_file(folder / f"{_DEMO[0]}.safetensors")
    rng = torch.Generator().manual_seed(1)
    for name in NAMES[len(_DEMO) :]:
        drawn = {key: _like(tensor, rng) for key, tensor in trained.items()}
        save_file(drawn, folder / f"{name}.safetensors")


def _like(tensor: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    values = tensor.float()
    drawn = values.mean() + values.std() * torch.randn(tensor.shape, generator=rng)
    return drawn.to(tensor.dtype)
