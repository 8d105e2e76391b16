"""`RowPairs` and `take_pairs`: LoRAs in a graph of the denoiser, where they are an argument.

A graph serves all LoRAs of its ranks, whatever they change: each row has matrices of its own, zeros
where its LoRAs leave a layer alone. Kernels are not in it. Few files change these, and where little
is computed a grouped convolution in every layer costs more than a graph saves.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from serve_app.pipelines.addons.lora_layers import LoraLayers
from serve_app.pipelines.addons.lora_places import PairBatch, PairShape, Place, ends, placed
from serve_app.pipelines.addons.lora_products import adding
from serve_app.pipelines.addons.lora_set import LoraSet
from serve_app.pipelines.transfer import to_device

__all__ = ["ROW_PAIRS", "RowPairs", "take_pairs"]

ROW_PAIRS = "row_pairs"  # argument: the matrices of a `PairBatch` whose groups are rows
_COPIES = 5  # of a forward's matrices at most: as made, and twice filled up to twice the rows
Matrices = tuple[torch.Tensor, ...]


class RowPairs:
    """Makes the argument; for the engine thread.

    Args:
        layers: of the denoiser.
        room: bytes that the matrices of a forward may take, with what they are copied to.
    """

    def __init__(self, layers: LoraLayers, room: int) -> None:
        self._layers, self._room = layers, room
        self._ends = ends(layers.places)  # asks every weight, which takes milliseconds
        self._numbers: list[int] | None = None  # of the sets that the others are for
        self._outline: Matrices | None = None
        self._made: Matrices | None = None

    def outline(self, sets: Sequence[LoraSet]) -> Matrices | None:
        """Return what has the shapes of the argument and takes no memory, by the set of each row.

        None: these LoRAs are not for graphs.
        """
        numbers = [own.number for own in sets]
        if numbers != self._numbers:
            self._outline, self._made = self._outlined(sets), None
            self._numbers = numbers
        return self._outline

    def of(self, sets: Sequence[LoraSet]) -> Matrices:
        """Return the argument where there is an outline; it is kept while the rows stay."""
        assert self.outline(sets) is not None, "whoever asks has seen it"
        if self._made is None:
            self._made = self._brought_together(sets)
        return self._made

    def clear(self) -> None:
        """Release the matrices."""
        self._made = None

    def _outlined(self, sets: Sequence[LoraSet]) -> Matrices | None:
        shape = self._layers.shape(sets)
        if not shape.rank or (wide := self._widened(shape)) is None:
            return None
        sizes: list[tuple[int, ...]] = [(wide.rank, wide.inputs), (wide.rank, wide.outputs)]
        if self._layers.has_gain(sets):
            sizes.append((wide.outputs,))
        weight = next(iter(self._layers.places.values())).layer.weight
        some = weight.new_zeros(1)
        made = tuple(some.expand(len(sets), *size) for size in sizes)
        takes = sum(one.numel() for one in made) * some.itemsize * _COPIES
        return made if takes <= self._room else None

    def _brought_together(self, sets: Sequence[LoraSet]) -> Matrices:
        distinct = {own.number: own for own in sets}
        wide = self._widened(self._layers.shape(sets))
        assert wide is not None, "it has an outline"
        batch = self._layers.batch(list(distinct.values()), wide)
        places = {number: place for place, number in enumerate(distinct)}
        rows = torch.tensor([places[own.number] for own in sets])
        rows = to_device(rows, batch.up.device)
        return tuple(one[rows] for one in (batch.down, batch.up, batch.gain) if one is not None)

    def _widened(self, shape: PairShape) -> PairShape | None:
        """Round columns up to where attention or all matrices end, so that few graphs are needed.

        None: kernels are changed.
        """
        for inputs, outputs in self._ends:
            if shape.inputs <= inputs and shape.outputs <= outputs:
                return PairShape(shape.rank, inputs, outputs)
        return None


@dataclass(slots=True, eq=False)
class _Given:
    """What the forward at work was given."""

    batch: PairBatch | None = None


def take_pairs(module: nn.Module) -> None:
    """Add the argument `ROW_PAIRS` to a module's forward, which serves one call at a time then."""
    given = _Given()
    for place in placed(module).values():
        place.layer.__dict__["forward"] = _taking(place, given)
    own = module.forward

    def forward(*args: object, row_pairs: Matrices = (), **kwargs: object) -> object:
        given.batch = PairBatch(*row_pairs) if row_pairs else None
        try:
            return own(*args, **kwargs)
        finally:
            given.batch = None

    module.__dict__["forward"] = forward


def _taking(place: Place, given: _Given) -> Callable[[torch.Tensor], torch.Tensor]:
    own = place.layer.forward

    def forward(x: torch.Tensor) -> torch.Tensor:
        batch = given.batch
        if batch is None or place.outputs.stop > batch.up.shape[2]:
            output: torch.Tensor = own(x)
            return output
        return adding(place.layer, place.pair(batch, slice(0, len(batch.up))))(x)

    return forward
