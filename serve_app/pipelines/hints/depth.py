"""`DepthHints`, and `NormalHints` made of depths: by transformers' models for depth estimation."""

import functools
import math
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional
from transformers import (
    AutoModelForDepthEstimation,
    BaseImageProcessor,
    PretrainedConfig,
    PreTrainedModel,
)

from serve_app.pipelines.hints.hint_model import HintModel, finite, load

__all__ = ["DepthHints", "NormalHints"]

# What they tell of a pixel: how near it is, or how far. ControlNets want the near bright.
_TELL_NEAR = ("dpt", "depth_anything")
_TELL_FAR = ("glpn", "zoedepth", "prompt_depth_anything", "depth_pro")
# Source: the model card of lllyasviel/sd-controlnet-normal, which MiDaS' units are made for.
_TOWARDS, _BACKGROUND = 2 * np.pi, 0.4
_LONGEST_PX = 1024  # GLPN has no size of its own, and memory would grow with the picture


class DepthHints(HintModel):
    """Draws how near things are, the nearest white and the farthest black.

    Args:
        folder: of the model and its image processor, with safetensors.
        device: that it runs on.
    """

    setting = "depth"

    def __init__(self, folder: Path, device: str) -> None:
        super().__init__(device)
        self._folder = folder

    def _drawn(self, image: Image.Image) -> Image.Image:
        shares = _shares(self._nearness(image))
        return Image.fromarray(np.rint(shares * 255).astype(np.uint8)).convert("RGB")

    def _nearness(self, image: Image.Image) -> NDArray[np.float32]:
        """Return how near each pixel is, (H, W), in the model's own units."""
        model, processor = self._loaded
        size, share = image.size, min(1.0, _LONGEST_PX / max(image.size))
        if share < 1:
            image = image.resize((round(size[0] * share), round(size[1] * share)))
        inputs = processor(images=image, return_tensors="pt").to(self.device)
        told = finite(model(**inputs).predicted_depth.float().cpu())
        down, across = (_margin(side, model, processor) for side in (image.height, image.width))
        sides = (image.height + 2 * down, image.width + 2 * across)
        whole = functional.interpolate(told[:, None], sides, mode="bicubic")[0, 0].numpy()
        values = whole[down : down + image.height, across : across + image.width]
        if image.size != size:
            values = cv2.resize(values, size, interpolation=cv2.INTER_CUBIC)
        return -values if _tells_far(model.config) else values

    @functools.cached_property
    def _loaded(self) -> tuple[PreTrainedModel, BaseImageProcessor]:
        model, processor = load(self._folder, AutoModelForDepthEstimation, self.device)
        self._check(model.config)
        return model, processor

    def _check(self, config: PretrainedConfig) -> None:
        """Raise ValueError when nobody knows what a model tells."""
        if config.model_type not in (*_TELL_NEAR, *_TELL_FAR):
            raise ValueError(f"{config.model_type} is not a depth model known here")


class NormalHints(DepthHints):
    """Draws which way surfaces face, by the slopes of MiDaS' depths.

    Red, green and blue are left to right, up to down, and towards the beholder; what is far away
    faces the beholder.
    """

    setting = "normal"

    def _drawn(self, image: Image.Image) -> Image.Image:
        depths = self._nearness(image)
        across, down = (cv2.Sobel(depths, cv2.CV_32F, 1 - axis, axis, ksize=3) for axis in (0, 1))
        normal = np.stack([across, down, np.zeros_like(depths)], axis=2)
        normal[_shares(depths) < _BACKGROUND] = 0
        normal[..., 2] = _TOWARDS
        normal /= np.linalg.norm(normal, axis=2, keepdims=True)
        return Image.fromarray((normal * 127.5 + 127.5).clip(0, 255).astype(np.uint8))

    def _check(self, config: PretrainedConfig) -> None:
        if config.model_type != "dpt" or _tells_far(config):
            raise ValueError(f"{config.model_type} has other units than MiDaS, a DPT")


def _margin(side: int, model: PreTrainedModel, processor: BaseImageProcessor) -> int:
    """Return the pixels that were put around a side of the picture, which are in no result.

    Only ZoeDepth does so. Source: its code, and `post_process_depth_estimation` of transformers,
    which needs torchvision for it.
    """
    is_padded = model.config.model_type == "zoedepth" and processor.do_pad
    return int(math.sqrt(side / 2) * 3) if is_padded else 0


def _tells_far(config: PretrainedConfig) -> bool:
    """Whether a model tells distances; some of the kinds that tell nearness are trained so."""
    backbone = getattr(config, "backbone_config", None)
    return (
        config.model_type in _TELL_FAR
        or getattr(config, "depth_estimation_type", None) == "metric"
        or (config.model_type == "dpt" and getattr(backbone, "model_type", None) == "dinov2")
    )


def _shares(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bring values to the range from 0 to 1."""
    low, high = values.min(), values.max()
    shares: NDArray[np.float32] = (values - low) / max(high - low, np.float32(1e-12))
    return shares
