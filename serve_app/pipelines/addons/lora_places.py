"""`Place`: where a layer's columns are in the packed matrices of a component's LoRAs."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from diffusers.models.attention_processor import Attention
from torch import nn

from serve_app.pipelines.addons.lora_products import GroupedPair, Layer

__all__ = ["PairBatch", "PairShape", "Place", "ends", "placed"]

_PROJECTIONS = (
    ("to_q", "to_k", "to_v"),
    ("add_q_proj", "add_k_proj", "add_v_proj"),
    ("q_proj", "k_proj", "v_proj"),
)


@dataclass(frozen=True, slots=True)
class PairShape:
    """Of a batch: ranks, and inputs and outputs of the layers up to the last that is changed."""

    rank: int
    inputs: int
    outputs: int


@dataclass(frozen=True, slots=True, eq=False)
class PairBatch:
    """Of all layers, by group. down: (G, R, inputs). up: (G, R, outputs). gain: (G, outputs)."""

    down: torch.Tensor
    up: torch.Tensor
    gain: torch.Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where a layer's columns are in packed matrices.

    given: tells what the layer is given from what others are.
    """

    layer: Layer
    given: str
    inputs: slice
    outputs: slice

    def pair(self, batch: PairBatch, groups: slice) -> GroupedPair:
        """Take its part of a batch out, of these groups."""
        return GroupedPair(
            batch.down[groups, :, self.inputs],
            batch.up[groups, :, self.outputs],
            None if batch.gain is None else batch.gain[groups, self.outputs],
            groups.start,
            len(batch.up),
        )


def placed(module: nn.Module) -> dict[str, Place]:
    """Assign columns to each layer; those that most LoRAs change come first, the largest last."""
    layers: list[tuple[str, Layer]] = [
        (name, own)
        for name, own in module.named_modules()
        if isinstance(own, nn.Linear) or (isinstance(own, nn.Conv2d) and _is_plain(own))
    ]

    def place(entry: tuple[str, Layer]) -> tuple[bool, bool]:
        name, own = entry
        return _is_kernel(own), not _is_attention(name)

    places, given = dict[str, Place](), _given(module)
    inputs = outputs = 0
    for name, own in sorted(layers, key=place):
        ends = inputs + own.weight[0].numel(), outputs + len(own.weight)
        places[name] = Place(
            own, given.get(name, name), slice(inputs, ends[0]), slice(outputs, ends[1])
        )
        inputs, outputs = ends
    return places


def ends(places: Mapping[str, Place]) -> list[tuple[int, int]]:
    """Return where the columns of attention end, and those of all matrices: inputs and outputs."""
    matrices = {name: one for name, one in places.items() if not _is_kernel(one.layer)}
    attention = [one for name, one in matrices.items() if _is_attention(name)]
    last = [one[-1] for one in (attention, list(matrices.values())) if one]
    return [(one.inputs.stop, one.outputs.stop) for one in last]


def _given(module: nn.Module) -> dict[str, str]:
    """Name what attention's projections are given: the texts are given to all that read them."""
    given: dict[str, str] = {}
    for name, own in module.named_modules():
        for names in _PROJECTIONS:
            layers = {one: getattr(own, one, None) for one in names}
            for one, layer in layers.items():
                if not isinstance(layer, nn.Linear):
                    continue
                is_cross = isinstance(own, Attention) and own.is_cross_attention
                if not is_cross:
                    given[f"{name}.{one}"] = f"{name}.{names[0]}"
                elif one != "to_q":
                    given[f"{name}.{one}"] = f"texts of {layer.in_features}"
    return given


def _is_attention(name: str) -> bool:
    return ".attn" in name or "self_attn." in name


def _is_plain(layer: nn.Conv2d) -> bool:
    return layer.groups == 1 and layer.padding_mode == "zeros"


def _is_kernel(layer: Layer) -> bool:
    return layer.weight[0, 0].numel() > 1
