"""M-LSD, the network that finds straight lines, in the tensor names of its published file.

Source: Gu et al. 2022, arXiv 2106.00186, the large model on MobileNetV2 (Sandler et al. 2018, arXiv
1801.04381), as lllyasviel/ControlNet uses it (`mlsd_large_512_fp32.pth`).
"""

import torch
from torch import nn
from torch.nn import functional

__all__ = ["WireframeNetwork"]

# Expansion, width, number and stride of MobileNetV2's blocks.
_BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1))
_TAPS = (1, 3, 6, 10, 13)  # layers that the head looks at
_UNUSED = 7  # maps before those of centres and ends


class WireframeNetwork(nn.Module):
    """Takes (1, 4, H, W) of -1 to 1, colours and a constant; sides are multiples of 16.

    Gives (1, 9, H/2, W/2): how likely the middle of a line is there, before the sigmoid, and from
    it to both ends, x and y.
    """

    def __init__(self) -> None:
        super().__init__()
        self.backbone = _Backbone()
        self.block15, self.block16 = _Join(64, 96), _Smooth()
        self.block17, self.block18 = _Join(32, 64), _Smooth()
        self.block19, self.block20 = _Join(24, 64), _Smooth()
        self.block21, self.block22 = _Join(16, 64), _Smooth()
        self.block23 = _Head()

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Find lines, from coarse to fine."""
        taps, features = [], pictures
        for number, layer in enumerate(self.backbone.features):
            features = layer(features)
            if number in _TAPS:
                taps.append(features)
        joined = taps.pop()
        for number in (15, 17, 19, 21):
            joined = getattr(self, f"block{number}")(taps.pop(), joined)
            joined = getattr(self, f"block{number + 1}")(joined)
        told: torch.Tensor = self.block23(joined)[:, _UNUSED:]
        return told


class _Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(*_features())


def _features() -> list[nn.Module]:
    layers: list[nn.Module] = [_Normed(4, 32, stride=2)]
    width = 32
    for expansion, outward, count, stride in _BLOCKS:
        for number in range(count):
            layers.append(_Inverted(width, outward, 1 if number else stride, expansion))
            width = outward
    return layers


class _Normed(nn.Sequential):
    """A convolution, normalised and cut off; halves sides as TensorFlow does."""

    def __init__(
        self, inward: int, outward: int, size: int = 3, stride: int = 1, groups: int = 1
    ) -> None:
        padding = (size - 1) // 2 if stride == 1 else 0
        super().__init__(
            nn.Conv2d(inward, outward, size, stride, padding, groups=groups, bias=False),
            nn.BatchNorm2d(outward),
            nn.ReLU6(),
        )
        self._pads = stride > 1

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if self._pads:
            features = functional.pad(features, (0, 1, 0, 1))
        for layer in self:
            features = layer(features)
        return features


class _Inverted(nn.Module):
    """Widens, looks around in each channel by itself, narrows."""

    def __init__(self, inward: int, outward: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inward * expansion
        widening = [] if expansion == 1 else [_Normed(inward, wide, size=1)]
        self.conv = nn.Sequential(
            *widening,
            _Normed(wide, wide, stride=stride, groups=wide),
            nn.Conv2d(wide, outward, 1, bias=False),
            nn.BatchNorm2d(outward),
        )
        self._adds = stride == 1 and inward == outward

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.conv(features)
        return features + made if self._adds else made


def _conv(inward: int, outward: int, size: int, spread: int = 1) -> nn.Sequential:
    padding = spread * (size // 2)
    return nn.Sequential(
        nn.Conv2d(inward, outward, size, padding=padding, dilation=spread),
        nn.BatchNorm2d(outward),
        nn.ReLU(),
    )


class _Join(nn.Module):
    """Puts coarse features beside fine ones."""

    def __init__(self, fine: int, coarse: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = _conv(coarse, 64, 1), _conv(fine, 64, 1)

    def forward(self, fine: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        size = fine.shape[-2:]
        large = functional.interpolate(
            self.conv1(coarse), size, mode="bilinear", align_corners=True
        )
        return torch.cat((self.conv2(fine), large), 1)


class _Smooth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = _conv(128, 128, 3), _conv(128, 64, 3)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.conv2(self.conv1(features) + features)
        return made


class _Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = _conv(64, 64, 3, spread=5), _conv(64, 64, 3)
        self.conv3 = nn.Conv2d(64, 16, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.conv3(self.conv2(self.conv1(features)))
        return made
