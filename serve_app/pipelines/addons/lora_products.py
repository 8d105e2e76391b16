"""`adding`: the forward of a layer with what LoRAs add to its rows.

A forward's rows fall into groups of equal size, one after another, each with a pair of its own; a
layer that only some groups change has pairs for these alone. Convolutions are computed with
channels last, as the layers themselves are: then the rows of a group are a matrix of pixels and
channels as they stand in memory, and nothing but a convolution's input has to be copied.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.nn import functional

__all__ = [
    "Forward",
    "GroupedPair",
    "Layer",
    "adding",
    "adding_together",
    "beside",
    "flat",
    "is_at_each_pixel",
]

Layer = nn.Linear | nn.Conv2d
Forward = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class GroupedPair:
    """What is added in a layer to G groups of rows, which stand side by side.

    down: (G, R, inputs), those of a kernel with channels last. up: (G, R, out). gain: (G, out), by
    which share the layer's own product grows; none: by nothing. first: of these groups among the
    `total` of the forward.
    """

    down: torch.Tensor
    up: torch.Tensor
    gain: torch.Tensor | None = None
    first: int = 0
    total: int = 1

    def rows(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the rows of these groups, in place."""
        if len(self.up) == self.total:
            return tensor
        size = len(tensor) // self.total
        return tensor[self.first * size : (self.first + len(self.up)) * size]


def adding(layer: Layer, pair: GroupedPair) -> Forward:
    """Return a forward for x (B, ...), B a multiple of all groups."""
    if isinstance(layer, nn.Linear):
        return partial(_linear, layer, pair, partial(_product, pair, pair.down.transpose(1, 2)))
    if is_at_each_pixel(layer):
        return partial(_conv, layer, pair, partial(_at_each_pixel, pair.down.transpose(1, 2)))
    kernels = pair.down.reshape(-1, *layer.kernel_size, layer.in_channels).permute(0, 3, 1, 2)
    return partial(_conv, layer, pair, partial(_around_each_pixel, layer, kernels, len(pair.up)))


def is_at_each_pixel(layer: nn.Conv2d) -> bool:
    """Whether a convolution is a matrix product at each pixel."""
    return layer.kernel_size == layer.stride == (1, 1) and layer.padding == (0, 0)


def beside(x: torch.Tensor, groups: int) -> torch.Tensor:
    """Bring the rows of groups, (B, C, H, W), side by side: (B / G, G * C, H, W)."""
    rows, (channels, height, width) = len(x) // groups, x.shape[1:]
    pixels = x.permute(0, 2, 3, 1).reshape(groups, rows, height, width, channels)
    side_by_side = pixels.permute(1, 2, 3, 0, 4).reshape(rows, height, width, groups * channels)
    return side_by_side.permute(0, 3, 1, 2)


def flat(weight: torch.Tensor) -> torch.Tensor:
    """Return weights (B, ...) as (B, inputs), those of a kernel with channels last."""
    return weight.movedim(1, -1).flatten(1)


def adding_together(layers: Sequence[nn.Linear], pairs: Sequence[GroupedPair]) -> list[Forward]:
    """Return forwards of layers that are given the same x; the pairs are of the same groups."""
    shared = _SharedProduct(pairs)
    return [
        partial(_linear, layer, pair, partial(shared.take, number))
        for number, (layer, pair) in enumerate(zip(layers, pairs, strict=True))
    ]


class _SharedProduct:
    """Multiplies what several layers are given by the matrices of all, when the first asks.

    Should one be given something else, each is served alone from then on.
    """

    def __init__(self, pairs: Sequence[GroupedPair]) -> None:
        self._pairs = pairs
        self._down = torch.cat([pair.down.transpose(1, 2) for pair in pairs], dim=2)
        self._ranks = [pair.down.shape[1] for pair in pairs]
        self._given: torch.Tensor | None = None
        self._made: Sequence[torch.Tensor] = ()
        self._left = 0  # layers that have not asked yet
        self._is_shared = True

    def take(self, number: int, x: torch.Tensor) -> torch.Tensor:
        """Return the product of one layer, (G, rows of a group, R)."""
        pair = self._pairs[number]
        if self._left and self._given is not x:
            self._left, self._is_shared = 0, False
        if self._is_shared and not self._left:
            # First, since it may fail for lack of memory.
            self._made = torch.split(_product(pair, self._down, x), self._ranks, dim=2)
            self._given, self._left = x, len(self._pairs)
        made = self._made[number] if self._left else _product(pair, pair.down.transpose(1, 2), x)
        self._left = max(0, self._left - 1)
        if not self._left:
            self._given, self._made = None, ()
        return made


def _product(pair: GroupedPair, down: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Multiply the rows of a pair's groups, of x (B, ..., in), by down (G, in, R)."""
    return torch.bmm(pair.rows(x).reshape(len(down), -1, x.shape[-1]), down)


def _linear(layer: nn.Linear, pair: GroupedPair, reduced: Forward, x: torch.Tensor) -> torch.Tensor:
    """Run a layer for x (B, ..., in). reduced: gives (G, rows of a group, R) of x."""
    output = functional.linear(x, layer.weight, layer.bias)
    by_group = pair.rows(output).view(len(pair.up), -1, output.shape[-1])
    if pair.gain is not None:
        bias = 0 if layer.bias is None else layer.bias
        by_group.add_(pair.gain[:, None] * (by_group - bias))
    by_group.baddbmm_(reduced(x), pair.up)
    return output


def _conv(layer: nn.Conv2d, pair: GroupedPair, reduced: Forward, x: torch.Tensor) -> torch.Tensor:
    """Run a layer for x (B, C, H, W). reduced: gives (G, pixels of a group, R) of its rows."""
    output: torch.Tensor = layer._conv_forward(x, layer.weight, layer.bias)
    own, groups = pair.rows(output), len(pair.up)
    if pair.gain is not None:
        bias = 0 if layer.bias is None else layer.bias[:, None, None]
        gain = pair.gain.repeat_interleave(len(own) // groups, dim=0)
        own.add_(gain[..., None, None] * (own - bias))
    pixels, inner = own.permute(0, 2, 3, 1), reduced(pair.rows(x))
    if pixels.is_contiguous():
        pixels.view(groups, -1, pixels.shape[-1]).baddbmm_(inner, pair.up)
    else:
        pixels.add_(torch.bmm(inner, pair.up).view(pixels.shape))
    return output


def _at_each_pixel(down: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Multiply x (B, C, H, W) by down (G, C, R); gives (G, pixels of a group, R)."""
    return torch.bmm(x.permute(0, 2, 3, 1).reshape(len(down), -1, x.shape[1]), down)


def _around_each_pixel(
    layer: nn.Conv2d, kernels: torch.Tensor, groups: int, x: torch.Tensor
) -> torch.Tensor:
    """Convolve x (B, C, H, W) with kernels (G * R, C, ...); gives (G, pixels of a group, R).

    The groups become those of one grouped convolution, with G * C channels.
    """
    inner = functional.conv2d(
        beside(x, groups),
        kernels,
        None,
        layer.stride,
        layer.padding,
        layer.dilation,
        groups,
    )
    return inner.permute(0, 2, 3, 1).reshape(-1, groups, len(kernels) // groups).transpose(0, 1)
