"""`HintModel`: one that draws what ControlNets of a type are shown, from files of this machine."""

from abc import ABC, abstractmethod
from pathlib import Path
from threading import Lock
from typing import ClassVar, Protocol

import torch
from PIL import Image
from transformers import AutoImageProcessor, BaseImageProcessor, PreTrainedModel

from serve_app import errors
from serve_app.images import codec
from serve_app.pipelines.soundness import check_module, settle
from serve_app.types import Picture

__all__ = ["HintModel", "finite", "load"]


class HintModel(ABC):
    """`draw` is safe to call from several threads; pictures wait for one another.

    Nothing is loaded before the first picture.

    Args:
        device: that it runs on.
    """

    setting: ClassVar[str]  # of `hints`, that names its files

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self._lock = Lock()

    def draw(self, picture: Picture) -> Picture:
        """Return the hint of a picture, of its size. Blocks.

        Raises:
            errors.GenerationFailed: there is no such model, or it gives no numbers.
        """
        image = codec.to_image(picture).convert("RGB")
        with self._lock:
            try:
                with torch.inference_mode():
                    drawn = self._drawn(image)
            except Exception as exc:  # whatever the libraries find wrong with the files
                text = f"hints.{self.setting}: {type(exc).__name__}: {exc}"
                raise errors.GenerationFailed(text) from exc
        return codec.encode(drawn)

    @abstractmethod
    def _drawn(self, image: Image.Image) -> Image.Image:
        """Draw the hint of a picture, both RGB and of one size; one picture at a time."""


class _Auto(Protocol):
    def from_pretrained(self, folder: Path, **options: bool) -> PreTrainedModel: ...


def load(
    folder: Path, auto: _Auto, device: torch.device
) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """Load a model of transformers with its image processor; the network is never asked.

    auto: one of transformers' classes that choose the class of a model.

    Raises:
        OSError, ValueError, RuntimeError, ImportError: it cannot be loaded.
        Unfit: weights are missing, or not finite.
    """
    model = auto.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    check_module("the model", model, folder)
    settle("the model", model.to(device), device)
    return model, AutoImageProcessor.from_pretrained(folder, local_files_only=True)


def finite(values: torch.Tensor) -> torch.Tensor:
    """Return what a model gave; raises ValueError unless all of it are numbers."""
    if not bool(torch.isfinite(values).all()):
        raise ValueError("no numbers")
    return values
