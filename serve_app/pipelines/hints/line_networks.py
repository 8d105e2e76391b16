"""The networks that find edges and draw lines, in the tensor names of their published files.

Sources: HED, Xie and Tu 2015, arXiv 1504.06375, as lllyasviel/ControlNet trained it anew on RGB
(`ControlNetHED.pth`); the generator of informative drawings, Chan et al. 2022, arXiv 2203.12691
(`sk_model.pth`).
"""

import itertools
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional

__all__ = ["DrawingNetwork", "EdgeNetwork"]

_LEVELS = ((3, 64, 2), (64, 128, 2), (128, 256, 3), (256, 512, 3), (512, 512, 3))


class EdgeNetwork(nn.Module):
    """HED: finds edges at five scales. Takes (1, 3, H, W) of 0 to 255, gives (1, 1, H, W) in 0..1.

    Sides are at least 16.
    """

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.Parameter(torch.zeros(1, 3, 1, 1))
        for number, level in enumerate(_LEVELS, 1):
            self.add_module(f"block{number}", _Level(*level))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Average what the scales say, each at the size of the picture."""
        size = pictures.shape[-2:]
        told = [
            functional.interpolate(one, size, mode="bilinear")
            for one in self._projections(pictures - self.norm)
        ]
        return torch.sigmoid(torch.stack(told).mean(0))

    def _projections(self, features: torch.Tensor) -> Iterator[torch.Tensor]:
        for number in range(1, len(_LEVELS) + 1):
            if number > 1:
                features = functional.max_pool2d(features, 2)
            level = self.get_submodule(f"block{number}")
            assert isinstance(level, _Level), "blocks are levels"
            features = level(features)
            yield level.projection(features)


class _Level(nn.Module):
    """Convolutions of one scale; `projection` tells the edges that they see."""

    def __init__(self, inward: int, outward: int, depth: int) -> None:
        super().__init__()
        widths = (inward, *[outward] * depth)
        self.convs = nn.Sequential(
            *(nn.Conv2d(*pair, 3, padding=1) for pair in itertools.pairwise(widths))
        )
        self.projection = nn.Conv2d(outward, 1, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        for conv in self.convs:
            features = functional.relu(conv(features))
        return features


class DrawingNetwork(nn.Module):
    """Draws dark lines on white. Takes (1, 3, H, W) of 0 to 1, gives (1, 1, H, W) in 0..1.

    Sides are multiples of 4.
    """

    def __init__(self) -> None:
        super().__init__()
        self.model0 = nn.Sequential(nn.ReflectionPad2d(3), *_convolved(nn.Conv2d(3, 64, 7), 64))
        self.model1 = nn.Sequential(
            *_convolved(nn.Conv2d(64, 128, 3, stride=2, padding=1), 128),
            *_convolved(nn.Conv2d(128, 256, 3, stride=2, padding=1), 256),
        )
        self.model2 = nn.Sequential(*(_Residual(256) for _ in range(3)))
        self.model3 = nn.Sequential(*_enlarged(256, 128), *_enlarged(128, 64))
        self.model4 = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(64, 1, 7), nn.Sigmoid())

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Draw them."""
        drawn = pictures
        for part in (self.model0, self.model1, self.model2, self.model3, self.model4):
            drawn = part(drawn)
        return drawn


class _Residual(nn.Module):
    """Adds what two convolutions make of it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        first, last = (nn.Conv2d(width, width, 3) for _ in range(2))
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            *_convolved(first, width),
            nn.ReflectionPad2d(1),
            last,
            nn.InstanceNorm2d(width),
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        whole: torch.Tensor = features + self.conv_block(features)
        return whole


def _convolved(conv: nn.Module, width: int) -> tuple[nn.Module, ...]:
    return conv, nn.InstanceNorm2d(width), nn.ReLU()


def _enlarged(inward: int, outward: int) -> tuple[nn.Module, ...]:
    conv = nn.ConvTranspose2d(inward, outward, 3, stride=2, padding=1, output_padding=1)
    return _convolved(conv, outward)
