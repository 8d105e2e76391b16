"""`Adapter` and `LoraSet`: a LoRA on the device, and those of one request as one.

A set is one adapter whose ranks are joined and whose strengths are folded in. Whatever number of
adapters a request names, a layer with the weights W then computes W x + up (down x), two small
products beside the one that it has anyway. A set itself holds no matrices: a forward's batch is
made from those of the adapters, so strengths of which there are many cost no memory.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from serve_app.types import LoraUse

__all__ = ["NO_LORAS", "Adapter", "LoraSet", "PackedPairs", "summed"]


@dataclass(frozen=True, slots=True, eq=False)
class PackedPairs:
    """The pairs of one component side by side, so that a batch is made by few copies.

    The component's layers have their places in an order of their own (`LoraLayers`); a matrix ends
    with the last layer that the adapter changes, and is zero at those that it leaves alone.

    down: (R, inputs of the layers). up: (R, outputs of the layers). layers: names of those changed.
    magnitudes: of a DoRA, (out,) by layer, float32. largest: of the values of `up`, without sign.
    """

    down: torch.Tensor
    up: torch.Tensor
    layers: tuple[str, ...]
    magnitudes: Mapping[str, torch.Tensor]
    largest: float

    @property
    def num_bytes(self) -> int:
        """Memory of the matrices."""
        return self.down.nbytes + self.up.nbytes

    def to(self, device: torch.device | str) -> "PackedPairs":
        """Copy to a device; what is there already stays."""
        magnitudes = {name: own.to(device) for name, own in self.magnitudes.items()}
        down, up = self.down.to(device), self.up.to(device)
        return replace(self, down=down, up=up, magnitudes=magnitudes)


@dataclass(frozen=True, eq=False)
class Adapter:
    """A LoRA that was read: its pairs by component.

    key: of its file. name: given once, so that no set means another one.
    """

    key: str
    name: str
    parts: Mapping[str, PackedPairs]

    @property
    def is_dora(self) -> bool:
        """Whether it also sets the lengths of the weights' rows."""
        return any(part.magnitudes for part in self.parts.values())

    @property
    def num_bytes(self) -> int:
        """Memory of the pairs."""
        return sum(part.num_bytes for part in self.parts.values())

    def to(self, device: torch.device | str) -> "Adapter":
        """Copy to a device; the copy means the same."""
        parts = {component: part.to(device) for component, part in self.parts.items()}
        return Adapter(self.key, self.name, parts)


@dataclass(frozen=True, eq=False)
class LoraSet:
    """The LoRAs of a request with their strengths, by catalogue id, a DoRA first.

    number: tells it from all others of its pipeline, also those to come. gains: of a DoRA, by
    component and for the outputs of all layers, by which share the product with the layer's own
    weights grows.
    """

    number: int
    uses: tuple[tuple[Adapter, float], ...]
    gains: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @property
    def of_text(self) -> tuple[tuple[str, float], ...]:
        """What text embeddings depend on: names and strengths of adapters of a text encoder."""
        return tuple(
            (adapter.name, strength)
            for adapter, strength in self.uses
            if any(component.startswith("text_encoder") for component in adapter.parts)
        )

    def of(self, component: str) -> list[tuple[PackedPairs, float]]:
        """List what acts on a component, with strengths."""
        parts = ((adapter.parts.get(component), strength) for adapter, strength in self.uses)
        return [(part, strength) for part, strength in parts if part is not None]


NO_LORAS = LoraSet(0, ())


def summed(uses: Sequence[LoraUse]) -> dict[str, float]:
    """Add up the strengths of each LoRA that is named; those that come to 0 are left out.

    To a millionth: what cancels in decimals is to be nothing, although floats leave a rest.
    """
    named: dict[str, list[float]] = {}
    for use in uses:
        named.setdefault(use.id, []).append(use.strength)
    sums = {name: round(math.fsum(named[name]), 6) for name in sorted(named)}
    return {name: strength for name, strength in sums.items() if strength}
