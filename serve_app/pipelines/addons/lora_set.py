"""`LoraSet`: the LoRAs of one request as one: ranks joined, strengths folded in.

Whatever number of adapters a request names, a layer with the weights W then computes
W x + up (down x), two small products beside the one that it has anyway.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from serve_app.pipelines.addons.lora_file import Pair

__all__ = ["NO_LORAS", "Adapter", "JoinedPair", "LoraSet", "joined"]

_MIN_RANK = 8  # ranks are powers of two from here on: few shapes, which suit a GPU


@dataclass(frozen=True, eq=False)
class Adapter:
    """A LoRA that was read: its pairs on the device, by layer and by component.

    name: given once, so that no set means another one.
    """

    name: str
    pairs: Mapping[str, Mapping[str, Pair]]

    @property
    def is_dora(self) -> bool:
        """Whether it also sets the lengths of the weights' rows."""
        return any(
            pair.magnitude is not None for own in self.pairs.values() for pair in own.values()
        )

    @property
    def num_bytes(self) -> int:
        """Memory of the pairs."""
        return sum(pair.num_bytes for own in self.pairs.values() for pair in own.values())


@dataclass(frozen=True, slots=True, eq=False)
class JoinedPair:
    """What a set does to one layer.

    down: (R, in, ...). up: (R, out), with the strengths. gain: of a DoRA, (out,), by which share
    the product with the layer's own weights grows; none: it stays.
    """

    down: torch.Tensor
    up: torch.Tensor
    gain: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class LoraSet:
    """The LoRAs of a request with their strengths, by catalogue id, a DoRA first.

    number: tells it from all others of its pipeline, also those to come. layers: by component.
    """

    number: int
    uses: tuple[tuple[Adapter, float], ...]
    layers: Mapping[str, Mapping[str, JoinedPair]]

    @property
    def of_text(self) -> tuple[tuple[str, float], ...]:
        """What text embeddings depend on: names and strengths of adapters of a text encoder."""
        return tuple(
            (adapter.name, strength)
            for adapter, strength in self.uses
            if any(component.startswith("text_encoder") for component in adapter.pairs)
        )


NO_LORAS = LoraSet(0, (), {})


def joined(weight: torch.Tensor, uses: list[tuple[Pair, float]]) -> JoinedPair:
    """Join the pairs of one layer.

    weight: of the layer, (out, in, ...). uses: pairs with their strengths, a DoRA first.
    """
    downs = [pair.down for pair, _ in uses]
    ups = [(pair.up.flatten(1).float() * strength).T for pair, strength in uses]
    gain = None
    if uses[0][0].magnitude is not None:
        factor = _length_factor(weight, *uses[0])
        ups[0] = ups[0] * factor
        gain = (factor - 1).to(weight.dtype)
    rank = sum(len(down) for down in downs)
    padding = max(_MIN_RANK, 1 << (rank - 1).bit_length()) - rank
    if padding:
        downs.append(downs[0].new_zeros(padding, *downs[0].shape[1:]))
        ups.append(ups[0].new_zeros(padding, ups[0].shape[1]))
    return JoinedPair(torch.cat(downs), torch.cat(ups).to(weight.dtype), gain)


def _length_factor(weight: torch.Tensor, pair: Pair, strength: float) -> torch.Tensor:
    """Return by how much the rows of the changed weights are to be stretched, (out,).

    Source: DoRA, arXiv 2402.09353, equation 5, with the lengths of rows of outputs as in peft.
    """
    assert pair.magnitude is not None, "only a DoRA has a length to give"
    change = pair.up.flatten(1).float() @ pair.down.flatten(1).float()
    lengths = torch.linalg.vector_norm(weight.flatten(1).float() + strength * change, dim=1)
    return torch.div(pair.magnitude.float(), lengths)
