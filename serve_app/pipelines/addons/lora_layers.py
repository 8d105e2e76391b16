"""`LoraLayers`: the layers of one component that LoRAs may change, and what is added in them.

A forward's rows fall into groups of equal size, each with a set of LoRAs of its own, which are
applied by batched products, one batch entry a group. The trained weights are never touched, and a
layer that nothing is added to runs as it was made.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from cachetools import LRUCache
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from serve_app.pipelines.addons.lora_file import Pair
from serve_app.pipelines.addons.lora_set import Adapter, JoinedPair, LoraSet, joined
from serve_app.pipelines.addons.misfit import Unfit
from serve_app.pipelines.soundness import check_tensor

__all__ = ["LoraLayers"]

_Layer = nn.Linear | nn.Conv2d
_Numbers = tuple[int, ...]  # of sets, one a group of rows


class LoraLayers:
    """`fitted` and `joined` are safe to call from several threads; `apply` is for the engine's.

    Args:
        name: of the component.
        module: the component.
        batch_bytes: memory for matrices that are brought together for the latest forwards.
    """

    def __init__(self, name: str, module: nn.Module, batch_bytes: int) -> None:
        self._name = name
        self._layers: dict[str, _Layer] = {
            layer: own
            for layer, own in module.named_modules()
            if isinstance(own, nn.Linear) or (isinstance(own, nn.Conv2d) and own.groups == 1)
        }
        self._batches: LRUCache[_Numbers, _Batch] = LRUCache(batch_bytes, lambda own: own.num_bytes)
        self._now: _Numbers = ()
        self._changed: tuple[_Layer, ...] = ()

    def fitted(self, pairs: Mapping[str, Pair]) -> dict[str, Pair]:
        """Hold pairs against the layers; returns them by the layers' names, on the CPU.

        Raises:
            Unfit: they are for layers of other names or shapes, or too large for its numbers.
        """
        return dict(self._fitted(written, pair) for written, pair in pairs.items())

    def joined(self, uses: Sequence[tuple[Adapter, float]]) -> dict[str, JoinedPair]:
        """Join what adapters with strengths, a DoRA first, do to each layer."""
        by_layer: dict[str, list[tuple[Pair, float]]] = {}
        for adapter, strength in uses:
            for layer, pair in adapter.pairs.get(self._name, {}).items():
                by_layer.setdefault(layer, []).append((pair, strength))
        return {
            layer: joined(self._layers[layer].weight, pairs) for layer, pairs in by_layer.items()
        }

    def num_bytes(self, sets: Sequence[LoraSet]) -> int:
        """Memory that a batch of groups with these sets takes, at most."""
        largest: dict[str, int] = {}
        for own in {lora_set.number: lora_set for lora_set in sets}.values():
            for layer, part in own.layers.get(self._name, {}).items():
                size = part.down.nbytes + part.up.nbytes
                largest[layer] = max(size, largest.get(layer, 0))
        return len(sets) * sum(largest.values())

    def apply(self, sets: Sequence[LoraSet]) -> None:
        """Add these sets to the layers from now on, each to its group of rows; none: nothing."""
        numbers = tuple(own.number for own in sets)
        if not any(own.layers.get(self._name) for own in sets):
            numbers = ()
        if numbers == self._now:
            return
        for layer in self._changed:
            layer.__dict__.pop("forward", None)
        self._now, self._changed = (), ()
        if not numbers:
            return
        batch = self._batches.get(numbers) or self._remembered(numbers, sets)
        for layer, own in batch.layers.items():
            layer.__dict__["forward"] = (
                partial(_add_to_conv, layer, own)
                if isinstance(layer, nn.Conv2d)
                else partial(_add_to_linear, layer, own)
            )
        self._now, self._changed = numbers, tuple(batch.layers)

    def _remembered(self, numbers: _Numbers, sets: Sequence[LoraSet]) -> "_Batch":
        batch = self._batch(sets)
        if batch.num_bytes <= self._batches.maxsize:
            self._batches[numbers] = batch
        return batch

    def _batch(self, sets: Sequence[LoraSet]) -> "_Batch":
        """Bring the matrices of all groups together, layer by layer, those of none as zeros."""
        parts = [own.layers.get(self._name, {}) for own in sets]
        names = {layer: None for own in parts for layer in own}  # in the order of the first
        return _Batch(
            {
                self._layers[name]: _together(self._layers[name], [own.get(name) for own in parts])
                for name in names
            }
        )

    def _fitted(self, written: str, pair: Pair) -> tuple[str, Pair]:
        name = self._known(written)
        layer, where = self._layers[name], f"{self._name}.{name}"
        made, wanted = (pair.up.shape[0], *pair.down.shape[1:]), tuple(layer.weight.shape)
        if made != wanted or pair.up.shape[2:].numel() != 1:
            raise Unfit(f"matrices for weights of {made} at {where}", f"{wanted}")
        magnitude = pair.magnitude
        if magnitude is not None and magnitude.numel() != len(layer.weight):
            found = f"{magnitude.numel()} DoRA magnitudes at {where}"
            raise Unfit(found, str(len(layer.weight)))
        settled = partial(_settled, where, layer.weight)
        return name, replace(
            pair,
            down=settled(pair.down),
            up=settled(pair.up),
            magnitude=None if magnitude is None else settled(magnitude),
        )

    def _known(self, layer: str) -> str:
        """Find a layer by its name in a file; transformers 5.6 dropped a part of some names."""
        bare = layer.removeprefix("text_model.")
        for name in (layer, bare, f"text_model.{bare}"):
            if name in self._layers:
                return name
        raise Unfit(f"the layer {self._name}.{layer}", "layers that the model has")


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Of one layer, by group of rows. down: (G, R, in, ...). up: (G, R, out). gain: (G, out)."""

    down: torch.Tensor
    up: torch.Tensor
    gain: torch.Tensor | None


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """What one division of rows into groups adds, by layer."""

    layers: Mapping[_Layer, _Group]

    @property
    def num_bytes(self) -> int:
        return sum(own.down.nbytes + own.up.nbytes for own in self.layers.values())


def _together(layer: _Layer, parts: Sequence[JoinedPair | None]) -> _Group:
    """Stack the matrices of one layer, those of a group without any as zeros."""
    weight = layer.weight
    found = [_nothing(weight) if own is None else own for own in parts]
    gain = None
    if any(own.gain is not None for own in found):
        no_gain = weight.new_zeros(len(weight))
        gain = torch.stack([no_gain if own.gain is None else own.gain for own in found])
    return _Group(_stacked([own.down for own in found]), _stacked([own.up for own in found]), gain)


def _nothing(weight: torch.Tensor) -> JoinedPair:
    return JoinedPair(weight.new_zeros(0, *weight.shape[1:]), weight.new_zeros(0, len(weight)))


def _stacked(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Stack tensors (R, ...), shorter ranks filled up with zeros."""
    if len(tensors) == 1:
        return tensors[0][None]
    if len({len(tensor) for tensor in tensors}) == 1:
        return torch.stack(tensors)
    return pad_sequence(tensors, batch_first=True)


def _add_to_linear(layer: nn.Linear, own: _Group, x: torch.Tensor) -> torch.Tensor:
    """Run a layer for x (B, ..., in), B a multiple of the groups."""
    output = functional.linear(x, layer.weight, layer.bias)
    groups = len(own.down)
    by_group = output.view(groups, -1, output.shape[-1])
    if own.gain is not None:
        bias = 0 if layer.bias is None else layer.bias
        by_group.add_(own.gain[:, None] * (by_group - bias))
    inner = torch.bmm(x.reshape(groups, -1, x.shape[-1]), own.down.transpose(1, 2))
    by_group.baddbmm_(inner, own.up)
    return output


def _add_to_conv(layer: nn.Conv2d, own: _Group, x: torch.Tensor) -> torch.Tensor:
    """Run a layer for x (B, C, H, W), B a multiple of the groups G.

    The groups become those of one grouped convolution, with G * C channels.
    """
    output: torch.Tensor = layer._conv_forward(x, layer.weight, layer.bias)
    groups, rank, channels = own.down.shape[:3]
    rows, (height, width) = len(x) // groups, x.shape[2:]
    if own.gain is not None:
        bias = 0 if layer.bias is None else layer.bias[:, None, None]
        gain = own.gain.repeat_interleave(rows, dim=0)[..., None, None]
        output.add_(gain * (output - bias))
    beside = x.reshape(groups, rows, channels, height, width).transpose(0, 1)
    inner = functional.conv2d(
        beside.reshape(rows, groups * channels, height, width),
        own.down.flatten(0, 1),
        None,
        layer.stride,
        layer.padding,
        layer.dilation,
        groups,
    )
    inner = inner.reshape(rows, groups, rank, -1).transpose(0, 1).reshape(len(x), rank, -1)
    up = own.up.transpose(1, 2).repeat_interleave(rows, dim=0)
    output.flatten(2).baddbmm_(up, inner)
    return output


def _settled(where: str, weight: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    # A copy, since files of the CPU are mapped and may change in place.
    settled = tensor.to("cpu", weight.dtype, copy=True).contiguous()
    check_tensor(where, settled)
    return settled
