"""`Merging`: layers that run with weights of each group's own, where that costs less than products.

Weights that have a group's LoRAs in them run as fast as the layer's own, but are read, and made
whenever the groups change, once for each group. So they pay where products would be much work for
the size of the layer, since a row has many pixels (or tokens), as at the upper levels of a UNet;
and where layers are so small that only the number of operations counts. Elsewhere products are
added (`lora_products`).
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn
from torch.nn import functional

from serve_app.pipelines.addons.lora_products import (
    Forward,
    GroupedPair,
    Layer,
    adding,
    adding_together,
    beside,
    flat,
    is_at_each_pixel,
)

__all__ = ["Merging", "SiblingLayers"]

# Of a row's products, for each weight and rank; measured by `benchmarks.lora_rows --layers`.
_MIN_WORK = 0.75
_MIN_WORK_AROUND = 1.2  # of kernels, whose rows have to be brought side by side
_MAX_SMALL_WEIGHTS = 8192  # of a layer that costs little but its calls
_MAX_SEEN = 4096  # numbers that kernels see of a row, for which a grouped convolution costs more
_Weights = tuple[torch.Tensor, torch.Tensor | None]  # and bias


class SiblingLayers:
    """Layers that are given the same x, and what their weights say of merging.

    num_bytes: of all weights.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = layers
        weights = [layer.weight for layer in layers]
        self.num_bytes = sum(weight.nbytes for weight in weights)
        self._work = 1 / weights[0][0].numel() + 1 / max(map(len, weights))  # of a pixel
        self._min_work = _MIN_WORK_AROUND if _sees_around(layers[0]) else _MIN_WORK
        self._channels = -1 if isinstance(layers[0], nn.Linear) else 1
        self._is_small = max(weight.numel() for weight in weights) <= _MAX_SMALL_WEIGHTS
        self.can_merge = all(map(_can_merge, layers))

    def pays(self, x: torch.Tensor, share: float) -> bool:
        """Whether weights of their own cost less than products for the rows of x (B, ...).

        share: of the rows for which there are products.
        """
        if self._is_small:
            return True
        pixels = x.numel() // (len(x) * x.shape[self._channels])
        return pixels * self._work * share >= self._min_work


class Merging:
    """Runs layers with what is added. What a way to run needs is made at its first run.

    Args:
        siblings: the layers.
        pairs: gives the layers' pairs for a range of groups.
        reached: the groups in which a layer is changed.
        groups: their number.
        has_room: whether there may be weights of each group's own.
    """

    def __init__(
        self,
        siblings: SiblingLayers,
        pairs: Callable[[slice], Sequence[GroupedPair]],
        reached: slice,
        groups: int,
        has_room: bool,
    ) -> None:
        self._siblings, self._pairs = siblings, pairs
        self._reached, self._groups = reached, slice(0, groups)
        self._share = (reached.stop - reached.start) / groups
        self._may_merge = has_room and siblings.can_merge
        self._merged: Sequence[_Weights] = ()
        self._products: Sequence[Forward] = ()

    def forwards(self) -> list[Forward]:
        """Return what to run in place of the layers' own."""
        return [partial(self._run, number) for number in range(len(self._siblings.layers))]

    def _run(self, number: int, x: torch.Tensor) -> torch.Tensor:
        layers = self._siblings.layers
        if not self._may_merge or not self._siblings.pays(x, self._share):
            if not self._products:
                self._products = _with_products(layers, self._pairs(self._reached))
            return self._products[number](x)
        if not self._merged:
            self._merged = [*map(_merge, layers, self._pairs(self._groups))]
        layer, (weights, bias) = layers[number], self._merged[number]
        if isinstance(layer, nn.Linear):
            return _linear(weights, bias, x)
        if is_at_each_pixel(layer):
            return _linear(weights, bias, x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        seen = x.numel() // len(x) * math.prod(layer.kernel_size)
        return (_by_windows if seen <= _MAX_SEEN else _by_groups)(layer, weights, bias, x)


def _with_products(layers: Sequence[Layer], pairs: Sequence[GroupedPair]) -> Sequence[Forward]:
    linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
    return adding_together(linears, pairs) if len(linears) > 1 else [adding(layers[0], pairs[0])]


def _sees_around(layer: Layer) -> bool:
    return isinstance(layer, nn.Conv2d) and not is_at_each_pixel(layer)


def _can_merge(layer: Layer) -> bool:
    """Whether a layer's weights may have LoRAs in them.

    Half precision has too few bits for what weak ones add to a weight: of a thousandth of the
    weights bfloat16 keeps half. Nobody has measured what pays on a GPU.
    """
    if layer.weight.dtype != torch.float32 or layer.weight.device.type != "cpu":
        return False
    return isinstance(layer, nn.Linear) or not isinstance(layer.padding, str)


def _merge(layer: Layer, pair: GroupedPair) -> _Weights:
    """Make the weights of all groups, (G, out, inputs), and their bias, (G, 1, out)."""
    groups = len(pair.up)
    own = layer.weight if isinstance(layer, nn.Linear) else flat(layer.weight)
    weights = own.expand(groups, -1, -1)
    if pair.gain is not None:
        weights = torch.addcmul(weights, weights, pair.gain[..., None])
    bias = None if layer.bias is None else layer.bias.expand(groups, 1, -1)
    return torch.baddbmm(weights, pair.up.transpose(1, 2), pair.down), bias


def _linear(weights: torch.Tensor, bias: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
    """Multiply x (B, ..., in) by the weights of each group's rows."""
    rows, turned = x.reshape(len(weights), -1, weights.shape[2]), weights.transpose(1, 2)
    made = torch.bmm(rows, turned) if bias is None else torch.baddbmm(bias, rows, turned)
    return made.view(*x.shape[:-1], made.shape[-1])


def _by_windows(
    layer: nn.Conv2d, weights: torch.Tensor, bias: torch.Tensor | None, x: torch.Tensor
) -> torch.Tensor:
    """Convolve x (B, C, H, W) by multiplying what the kernel sees at each pixel."""
    windows = _windows(layer, x)
    return _linear(weights, bias, windows.flatten(3)).permute(0, 3, 1, 2)


def _windows(layer: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """Return what the kernel sees of x (B, C, H, W): (B, height, width, ..., C), in place."""
    assert not isinstance(layer.padding, str), "it would not be merged"
    (high, wide), kernel, dilation = layer.padding, layer.kernel_size, layer.dilation
    padded = functional.pad(x.permute(0, 2, 3, 1), (0, 0, wide, wide, high, high))
    steps = padded.stride()
    shape, strides = [len(x)], [steps[0]]
    for axis in (0, 1):
        reach = (kernel[axis] - 1) * dilation[axis] + 1
        shape.append((padded.shape[1 + axis] - reach) // layer.stride[axis] + 1)
        strides.append(steps[1 + axis] * layer.stride[axis])
    within = [steps[1 + axis] * dilation[axis] for axis in (0, 1)]
    return padded.as_strided((*shape, *kernel, x.shape[1]), (*strides, *within, steps[3]))


def _by_groups(
    layer: nn.Conv2d, weights: torch.Tensor, bias: torch.Tensor | None, x: torch.Tensor
) -> torch.Tensor:
    """Convolve x (B, C, H, W) by one grouped convolution."""
    groups = len(weights)
    kernels = weights.view(-1, *layer.kernel_size, layer.in_channels).permute(0, 3, 1, 2)
    made = functional.conv2d(
        beside(x, groups),
        kernels,
        None if bias is None else bias.reshape(-1),
        layer.stride,
        layer.padding,
        layer.dilation,
        groups,
    )
    rows, (height, width) = len(made), made.shape[2:]
    pixels = made.permute(0, 2, 3, 1).reshape(rows, height, width, groups, -1)
    return pixels.permute(3, 0, 1, 2, 4).reshape(len(x), height, width, -1).permute(0, 3, 1, 2)
