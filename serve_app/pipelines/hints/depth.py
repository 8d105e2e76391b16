"""`DepthHints`: what ControlNets for depth are shown, by a model that the operator names.

Models of transformers for depth estimation, from a folder of this machine. Nothing is loaded until
a request asks for such a hint.
"""

from pathlib import Path
from threading import Lock

import numpy as np
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForDepthEstimation,
    BaseImageProcessor,
    PreTrainedModel,
)

from serve_app import errors
from serve_app.images import codec
from serve_app.pipelines.soundness import check_module, settle
from serve_app.types import Picture

__all__ = ["DepthHints"]

# What they tell of a pixel: how near it is, or how far. ControlNets want the near bright.
_TELL_NEAR = ("dpt", "depth_anything")
_TELL_FAR = ("glpn", "zoedepth", "prompt_depth_anything", "depth_pro")


class DepthHints:
    """`draw` is safe to call from several threads; pictures wait for one another.

    Args:
        folder: of the model and its image processor, with safetensors.
        device: that it runs on.
    """

    def __init__(self, folder: Path, device: str) -> None:
        self._folder = folder
        self._device = torch.device(device)
        self._lock = Lock()
        self._model: PreTrainedModel | None = None
        self._processor: BaseImageProcessor | None = None

    def draw(self, picture: Picture) -> Picture:
        """Return the depths of a picture, near is bright, of its size. Blocks; loads once.

        Raises:
            errors.GenerationFailed: there is no such model, or it gives no numbers.
        """
        with self._lock:
            try:
                depths = self._estimated(codec.to_image(picture).convert("RGB"))
            except (OSError, ValueError, RuntimeError) as exc:
                raise errors.GenerationFailed(f"hints.depth: {exc}") from exc
        levels = np.rint(depths.numpy() * 255).astype(np.uint8)
        return codec.encode(Image.fromarray(levels).convert("RGB"))

    @torch.inference_mode()
    def _estimated(self, image: Image.Image) -> torch.Tensor:
        """Return how near each pixel is, (H, W), from 0 to 1."""
        model, processor = self._loaded()
        inputs = processor(images=image, return_tensors="pt").to(self._device)
        told = model(**inputs).predicted_depth.float().cpu()
        size = (image.height, image.width)
        values = torch.nn.functional.interpolate(told[:, None], size, mode="bicubic")[0, 0]
        if not bool(torch.isfinite(values).all()):
            raise ValueError("no numbers")
        if model.config.model_type in _TELL_FAR:
            values = -values
        low, high = torch.aminmax(values)
        return (values - low) / (high - low).clamp(min=1e-12)

    def _loaded(self) -> tuple[PreTrainedModel, BaseImageProcessor]:
        if self._model is None or self._processor is None:
            folder = self._folder
            model = AutoModelForDepthEstimation.from_pretrained(
                folder, local_files_only=True, use_safetensors=True
            )
            if model.config.model_type not in (*_TELL_NEAR, *_TELL_FAR):
                raise ValueError(f"{model.config.model_type} is no model of depths known here")
            check_module("model", model, folder)
            settle("the model", model.to(self._device), self._device)
            self._processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
            self._model = model
        return self._model, self._processor
