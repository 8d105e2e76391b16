"""`LoraLayers`: the layers of one component that LoRAs may change, and what is added in them.

A forward's rows fall into groups of equal size, each with a set of LoRAs of its own, which are
applied by batched products, one batch entry a group. The trained weights are never touched, and a
layer that nothing is added to runs as it was made.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import nn

from serve_app.pipelines.addons.lora_file import Pair
from serve_app.pipelines.addons.lora_merging import Merging, SiblingLayers
from serve_app.pipelines.addons.lora_places import PairBatch, PairShape, Place, placed
from serve_app.pipelines.addons.lora_products import Forward, GroupedPair, Layer, flat
from serve_app.pipelines.addons.lora_set import LoraSet, PackedPairs
from serve_app.pipelines.addons.misfit import Unfit
from serve_app.pipelines.soundness import check_tensor

__all__ = ["LoraLayers"]

_MAX_SIBLINGS = 4096  # sets of layers whose weights need not be asked about again
_MIN_RANK = 8  # ranks are powers of two from here on: few shapes, which suit a GPU


class LoraLayers:
    """`packed` and `gain` are safe to call from several threads; `apply` is for the engine's.

    places: of the layers, by name.

    Args:
        name: of the component.
        module: the component.
        merge_bytes: that a batch with the weights of its layers may take; 0: none are merged.
    """

    def __init__(self, name: str, module: nn.Module, merge_bytes: int = 0) -> None:
        self._name = name
        self._merge_bytes = merge_bytes
        self.places = placed(module)
        self._dtype = next(module.parameters()).dtype
        self._now: tuple[int, ...] | None = ()  # numbers of the sets, by group; none: half changed
        self._changed: list[Layer] = []
        self._siblings: dict[tuple[str, ...], SiblingLayers] = {}

    def packed(self, pairs: Mapping[str, Pair]) -> PackedPairs:
        """Check pairs against the layers, and put them side by side, on the CPU.

        Raises:
            Unfit: they are for layers of other names or shapes, two are for one layer, or they are
                too large for the layers' numbers.
        """
        fitted: dict[str, Pair] = {}
        for written, pair in pairs.items():
            layer = self._known(written)
            if layer in fitted:
                raise Unfit(f"two pairs of matrices for {self._name}.{layer}", "one")
            fitted[layer] = self._fitted(layer, pair)
        places = [self.places[layer] for layer in fitted]
        rank = _bucket(max(len(pair.down) for pair in fitted.values()))
        dtype = places[0].layer.weight.dtype
        down = torch.zeros(rank, max(place.inputs.stop for place in places), dtype=dtype)
        up = torch.zeros(rank, max(place.outputs.stop for place in places), dtype=dtype)
        for place, pair in zip(places, fitted.values(), strict=True):
            own = len(pair.down)
            down[:own, place.inputs] = flat(pair.down)
            up[:own, place.outputs] = flat(pair.up).T
        magnitudes = {
            layer: pair.magnitude.float()
            for layer, pair in fitted.items()
            if pair.magnitude is not None
        }
        return PackedPairs(down, up, tuple(fitted), magnitudes, float(up.abs().max()))

    def gain(self, part: PackedPairs, strength: float) -> torch.Tensor:
        """Return by which share the rows of a DoRA's layers grow, (outputs of the layers,).

        Source: arXiv 2402.09353, equation 5, with the lengths of rows of outputs as in peft.

        Raises:
            Unfit: weights that have no length.
        """
        gain = part.up.new_zeros(part.up.shape[1], dtype=torch.float32)
        for layer, magnitude in part.magnitudes.items():
            place = self.places[layer]
            weight = flat(place.layer.weight).float()
            up, down = part.up[:, place.outputs].float(), part.down[:, place.inputs].float()
            lengths = torch.linalg.vector_norm(weight + strength * (up.T @ down), dim=1)
            gain[place.outputs] = magnitude / lengths - 1
        if not bool(torch.isfinite(gain).all()):
            raise Unfit("a DoRA of weights without a length", "weights that are not zero")
        largest = part.up.abs().amax(0).float() * abs(strength) * (1 + gain).abs()
        if float(largest.max()) > torch.finfo(part.up.dtype).max:
            raise Unfit(f"numbers that overflow at a strength of {strength:g}", "a smaller one")
        return gain

    def num_changed(self, own: LoraSet) -> int:
        """Count what a set changes; a layer of two LoRAs twice."""
        return sum(len(part.layers) for part, _ in own.of(self._name))

    def num_bytes(self, sets: Sequence[LoraSet]) -> int:
        """Memory that the matrices of groups with these sets take at most.

        Matrices of inputs may be in it twice: of kernels there is a copy with channels last, and
        those of layers that are given the same are brought together.
        """
        shape = self.shape(sets)
        columns = 2 * shape.inputs + shape.outputs
        return len(sets) * shape.rank * columns * self._dtype.itemsize

    def shape(self, sets: Sequence[LoraSet]) -> PairShape:
        """Return what a batch of these sets takes at least; rank 0: nothing is changed."""
        parts = [own.of(self._name) for own in sets]
        every = [part for own in parts for part, _ in own]
        return PairShape(
            _bucket(max((sum(len(part.down) for part, _ in own) for own in parts), default=0)),
            max((part.down.shape[1] for part in every), default=0),
            max((part.up.shape[1] for part in every), default=0),
        )

    def has_gain(self, sets: Sequence[LoraSet]) -> bool:
        """Whether a DoRA is among them."""
        return any(self._name in own.gains for own in sets)

    def batch(self, sets: Sequence[LoraSet], shape: PairShape) -> PairBatch:
        """Bring the matrices of groups with these sets together, zeros where one has less."""
        parts = [own.of(self._name) for own in sets]
        some = next(part for own in parts for part, _ in own)
        down = some.down.new_zeros(len(sets), shape.rank, shape.inputs)
        up = some.up.new_zeros(len(sets), shape.rank, shape.outputs)
        gain = some.up.new_zeros(len(sets), shape.outputs) if self.has_gain(sets) else None
        for group, own in enumerate(parts):
            start, grown = 0, sets[group].gains.get(self._name)
            for part, strength in own:
                ranks = slice(start, start := start + len(part.down))
                factor: float | torch.Tensor = strength
                if part.magnitudes and grown is not None and gain is not None:
                    gain[group, : len(grown)] = grown
                    factor = strength * (1 + grown)
                down[group, ranks, : part.down.shape[1]] = part.down
                torch.mul(part.up, factor, out=up[group, ranks, : part.up.shape[1]])
        return PairBatch(down, up, gain)

    def apply(self, sets: Sequence[LoraSet]) -> None:
        """Add these sets to the layers from now on, each to its group of rows; none: nothing."""
        numbers = tuple(own.number for own in sets)
        if numbers == self._now:
            return
        for layer in self._changed:
            layer.__dict__.pop("forward", None)
        self._now, self._changed = None, []
        parts = [own.of(self._name) for own in sets]
        if any(parts):
            batch = self.batch(sets, self.shape(sets))
            room = self._merge_bytes - self.num_bytes(sets)
            for layer, forward in self._forwards(batch, _reached(parts), room):
                layer.__dict__["forward"] = forward
                self._changed.append(layer)
        self._now = numbers

    def _forwards(
        self, batch: PairBatch, reached: Mapping[str, slice], room: int
    ) -> Iterator[tuple[Layer, Forward]]:
        """Yield forwards that add a batch; layers that are given the same compute together.

        room: bytes that merged weights may take. The smallest are given some first, since these
        are at the upper levels of a UNet, where it helps most.
        """
        beside: dict[str, list[str]] = {}
        for name in reached:
            beside.setdefault(self.places[name].given, []).append(name)
        families = [(self._siblings_of(tuple(names)), names) for names in beside.values()]
        for siblings, names in sorted(families, key=lambda family: family[0].num_bytes):
            room -= len(batch.up) * siblings.num_bytes
            ends = [(reached[name].start, reached[name].stop) for name in names]
            groups = slice(min(ends)[0], max(stop for _, stop in ends))
            pairs = partial(_pairs, [self.places[name] for name in names], batch)
            merging = Merging(siblings, pairs, groups, len(batch.up), has_room=room >= 0)
            yield from zip(siblings.layers, merging.forwards(), strict=True)

    def _siblings_of(self, names: tuple[str, ...]) -> SiblingLayers:
        """Return layers that are given the same; what their weights say is asked once."""
        if names not in self._siblings:
            if len(self._siblings) >= _MAX_SIBLINGS:
                self._siblings.clear()
            self._siblings[names] = SiblingLayers([self.places[name].layer for name in names])
        return self._siblings[names]

    def _fitted(self, name: str, pair: Pair) -> Pair:
        weight, where = self.places[name].layer.weight, f"{self._name}.{name}"
        pair = pair.for_weights(tuple(weight.shape))
        made, wanted = (pair.up.shape[0], *pair.down.shape[1:]), tuple(weight.shape)
        if made != wanted or pair.up.shape[2:].numel() != 1:
            raise Unfit(f"matrices for weights of {made} at {where}", f"{wanted}")
        magnitude = pair.magnitude
        if magnitude is not None and magnitude.numel() != len(weight):
            raise Unfit(f"{magnitude.numel()} DoRA magnitudes at {where}", str(len(weight)))
        down, up = _balanced(pair.down.float(), pair.up.float(), weight.dtype)
        for half in (down, up):
            check_tensor(where, half)
        return Pair(down, up, magnitude)

    def _known(self, layer: str) -> str:
        """Find a layer by its name in a file; transformers 5.6 dropped a part of some names."""
        bare = layer.removeprefix("text_model.")
        for name in (layer, bare, f"text_model.{bare}"):
            if name in self.places:
                return name
        raise Unfit(f"the layer {self._name}.{layer}", "layers that the model has")


def _pairs(places: Sequence[Place], batch: PairBatch, groups: slice) -> list[GroupedPair]:
    return [place.pair(batch, groups) for place in places]


def _reached(parts: Sequence[Sequence[tuple[PackedPairs, float]]]) -> dict[str, slice]:
    """Return from which group to which each layer is changed; some between may leave it alone."""
    ends: dict[tuple[str, ...], list[int]] = {}  # many adapters change the same layers
    for group, own in enumerate(parts):
        for part, _ in own:
            ends.setdefault(part.layers, [group, group])[1] = group
    reached: dict[str, slice] = {}
    for layers, (first, last) in ends.items():
        for layer in layers:
            known = reached.get(layer, slice(first, last + 1))
            reached[layer] = slice(min(known.start, first), max(known.stop, last + 1))
    return reached


def _bucket(rank: int) -> int:
    return max(_MIN_RANK, 1 << (rank - 1).bit_length()) if rank else 0


def _balanced(
    down: torch.Tensor, up: torch.Tensor, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Convert both; for half precision with equal largest values, by a power of two.

    A factor of 1/128 in one of them, as alpha and rank give it, would leave few of its bits.
    """
    if dtype.itemsize < 4:
        largest = [float(half.abs().max()) for half in (down, up)]
        if all(0 < one < float("inf") for one in largest):
            power = round(torch.log2(torch.tensor(largest[0] / largest[1])).item() / 2)
            down, up = down * 2.0**-power, up * 2.0**power
    return down.to(dtype), up.to(dtype)
