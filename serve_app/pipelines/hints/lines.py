"""Soft edges, line drawings and straight lines, by the networks of ControlNet's annotator."""

import functools
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from serve_app.pipelines.hints.hint_model import HintModel, finite
from serve_app.pipelines.hints.line_networks import DrawingNetwork, EdgeNetwork
from serve_app.pipelines.hints.wireframe_network import WireframeNetwork
from serve_app.pipelines.soundness import check_shapes, settle

__all__ = ["DrawingHints", "EdgeHints", "SafeEdgeHints", "WireframeHints"]

Levels = NDArray[np.uint8]
# As the annotator shows them pictures; the longest side is bounded, and with it time and memory.
_SHORTER_PX, _LONGEST_PX, _MULTIPLE_PX = 512, 1024, 64
# As the annotator draws straight lines: the likeliest, their least score and length.
_MAX_LINES, _LEAST_SCORE, _LEAST_LENGTH = 200, 0.1, 0.1


class _Lines(HintModel):
    """Shows a picture to a network, at a size of its own, and draws what it tells.

    Args:
        file: of the network, safetensors, in the names of the published one.
        device: that it runs on.
    """

    network: ClassVar[type[nn.Module]]

    def __init__(self, file: Path, device: str) -> None:
        super().__init__(device)
        self._file = file

    def _drawn(self, image: Image.Image) -> Image.Image:
        seen = _sized(np.asarray(image))
        pixels = torch.from_numpy(seen).to(self.device).float().permute(2, 0, 1)[None]
        levels = cv2.resize(self._levels(pixels), image.size, interpolation=cv2.INTER_LINEAR)
        return Image.fromarray(levels).convert("RGB")

    @abstractmethod
    def _levels(self, pixels: torch.Tensor) -> Levels:
        """Draw pixels of 0 to 255, (1, 3, H, W), in levels of grey, (H, W), white on black."""

    def _told(self, inputs: torch.Tensor) -> torch.Tensor:
        """Run the network."""
        return finite(self._loaded(inputs))

    @functools.cached_property
    def _loaded(self) -> nn.Module:
        tensors = load_file(self._file)
        with torch.device("meta"):  # nothing is drawn, since all of it is replaced
            network = self.network()
        check_shapes(tensors, network.state_dict())
        network.load_state_dict(tensors, assign=True)
        settle("the network", network.float().to(self.device), self.device)
        return network


class EdgeHints(_Lines):
    """Draws soft edges by HED."""

    setting = "softedge"
    network = EdgeNetwork

    def _levels(self, pixels: torch.Tensor) -> Levels:
        return _bytes(self._edges(pixels))

    def _edges(self, pixels: torch.Tensor) -> NDArray[np.float32]:
        return np.asarray(self._told(pixels)[0, 0].cpu())


class SafeEdgeHints(EdgeHints):
    """Draws them in three levels, so that faint edges do not tell a net the picture itself.

    So were nets of the type softedge trained; the level above white is white.
    """

    def _edges(self, pixels: torch.Tensor) -> NDArray[np.float32]:
        return np.asarray(np.trunc(super()._edges(pixels) * 3) / 2, np.float32)


class DrawingHints(_Lines):
    """Draws lines as an artist might, white on black."""

    setting = "lineart"
    network = DrawingNetwork

    def _levels(self, pixels: torch.Tensor) -> Levels:
        return 255 - _bytes(self._told(pixels / 255)[0, 0].cpu().numpy())


class WireframeHints(_Lines):
    """Draws straight lines by M-LSD, one pixel wide at the size that it sees."""

    setting = "mlsd"
    network = WireframeNetwork

    def _levels(self, pixels: torch.Tensor) -> Levels:
        inputs = torch.cat((pixels, torch.ones_like(pixels[:, :1])), 1) / 127.5 - 1
        levels = np.zeros(pixels.shape[-2:], np.uint8)
        for x, y, *ends in _likely(self._told(inputs)[0]):
            first, last = (
                (int(2 * (x + across)), int(2 * (y + down)))
                for across, down in (ends[:2], ends[2:])
            )
            cv2.line(levels, first, last, 255, 1)
        return levels


def _likely(told: torch.Tensor) -> list[list[float]]:
    """Choose lines of what M-LSD tells, (9, h, w): x and y of the middle, and to both ends."""
    scores = torch.sigmoid(told[:1])
    is_peak = functional.max_pool2d(scores, 3, stride=1, padding=1) == scores
    best = (scores * is_peak).flatten().topk(_MAX_LINES)
    places = best.indices[best.values > _LEAST_SCORE]
    middles = torch.stack((places % told.shape[2], places // told.shape[2]), 1)
    ends = told[1:5].flatten(1)[:, places].T
    is_long = (ends[:, :2] - ends[:, 2:]).norm(dim=1) > _LEAST_LENGTH
    lines: list[list[float]] = torch.cat((middles, ends), 1)[is_long].tolist()
    return lines


def _bytes(shares: NDArray[np.float32]) -> Levels:
    return (shares * np.float32(255)).clip(0, 255).astype(np.uint8)


def _sized(pixels: Levels) -> Levels:
    """Bring a picture, (H, W, 3), to the size that the networks see."""
    height, width = pixels.shape[:2]
    scale = min(_SHORTER_PX / min(height, width), _LONGEST_PX / max(height, width))
    size = [max(1, round(side * scale / _MULTIPLE_PX)) * _MULTIPLE_PX for side in (width, height)]
    method = cv2.INTER_LANCZOS4 if scale > 1 else cv2.INTER_AREA
    resized: Levels = cv2.resize(pixels, size, interpolation=method)
    return resized
