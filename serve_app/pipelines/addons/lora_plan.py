"""`RowPlan`: in which order, and in how many parts, the rows of a forward run that have LoRAs."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import groupby

import torch

from serve_app.engine.stacking import join_outputs, map_tensors
from serve_app.pipelines.transfer import to_device

__all__ = ["RowPlan"]

RunGroups = Callable[[Sequence[int], dict[str, object]], object]


class RowPlan:
    """Rows of one set are together, those of sets that change many layers last.

    So fewer matrices are brought together, and a layer is added to only where it is changed. A
    forward whose matrices need too much memory runs in parts, by set. A plan is made when rows come
    or go, and holds for as many forwards as they stay.

    Args:
        numbers: of each row's set; 0: none.
        width: how much a set changes.
        fits: whether the matrices of groups with these sets have room.
    """

    def __init__(
        self,
        numbers: Sequence[int],
        width: Callable[[int], int],
        fits: Callable[[Sequence[int]], bool],
    ) -> None:
        self.numbers = numbers
        widths = {number: width(number) for number in numbers}
        order = sorted(range(len(numbers)), key=lambda row: (widths[numbers[row]], numbers[row]))
        parts = [order]
        if len(widths) > 1 and not fits(_groups(numbers, order)):
            parts = _parted(order, numbers, fits)
        self._parts = [(_groups(numbers, rows), _Pick(rows, len(numbers))) for rows in parts]
        places = [row for rows in parts for row in rows]
        self._back = _Pick(sorted(range(len(places)), key=places.__getitem__), len(places))

    def run(
        self, run: RunGroups, arguments: Mapping[str, object], shared: Collection[str]
    ) -> object:
        """Run the parts one after another and give back all rows as they stood.

        run: is told the sets of a part's groups, which are of equal size. shared: arguments without
        rows.
        """
        outputs = []
        for groups, pick in self._parts:
            own = {
                name: value if name in shared else pick.of(value)
                for name, value in arguments.items()
            }
            outputs.append(run(groups, own))
        return self._back.of(join_outputs(outputs))


class _Pick:
    """Takes these of all rows, in this order. A device is told once which."""

    def __init__(self, rows: Sequence[int], total: int) -> None:
        self._rows = None if list(rows) == list(range(total)) else torch.tensor(rows)
        self._placed: dict[torch.device, torch.Tensor] = {}

    def of(self, value: object) -> object:
        rows = self._rows
        if rows is None:
            return value
        return map_tensors(value, lambda tensor: tensor[self._on(rows, tensor.device)])

    def _on(self, rows: torch.Tensor, device: torch.device) -> torch.Tensor:
        if device not in self._placed:
            self._placed[device] = to_device(rows, device)
        return self._placed[device]


def _groups(numbers: Sequence[int], rows: Sequence[int]) -> list[int]:
    """Return the set of each group of rows; groups are as large as the rows allow."""
    own = [numbers[row] for row in rows]
    size = math.gcd(*(len(list(same)) for _, same in groupby(own)))
    return own[::size]


def _parted(
    order: Sequence[int], numbers: Sequence[int], fits: Callable[[Sequence[int]], bool]
) -> list[list[int]]:
    """Cut rows, in the order of their sets, into parts whose matrices have room."""
    parts: list[list[int]] = []
    for number, rows in groupby(order, key=numbers.__getitem__):
        same = list(rows)
        longer = [*parts[-1], *same] if parts else same
        has_room = fits(_groups(numbers, longer))
        if parts and has_room and number and numbers[parts[-1][0]]:
            parts[-1] = longer
        else:
            parts.append(same)
    return parts
