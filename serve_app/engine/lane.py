"""A `Lane` is one real module that calls are parked for; `forward` runs parked calls in one go."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from serve_app.engine.stacking import (
    Arguments,
    filled,
    join_outputs,
    signature,
    slice_rows,
    split,
    stack,
)

__all__ = ["Call", "Lane", "forward"]


@dataclass(frozen=True, slots=True, eq=False)
class Lane:
    """A module whose calls can be stacked, row by row independent of one another.

    run: the real forward; arguments by name, returns a tensor or a tuple of tensors.
    shared: arguments without rows; equal for all requests of equal `Request.key`.
    marks: arguments, integers by row, that say what is added to the row; zero: nothing.
    optional: arguments with rows that not all calls have; the rows of others get zeros for them.
    urgent: calls that depend on no variant and go before those that do: what begins or ends a
        request, or leads to a call that does depend on one.
    rank: of an urgent lane among those; calls of the lowest go first.
    max_rows: bound of one forward beside the measured cap; 0: none.
    caps: name of the lane whose measured caps hold for this one; empty: its own.
    plain: the forward that row caps are measured by, where `run` is not equally fast at all times;
        none: `run`.
    """

    name: str
    run: Callable[[dict[str, object]], object]
    shared: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    urgent: bool = False
    marks: frozenset[str] = frozenset()
    rank: int = 0
    max_rows: int = 0
    caps: str = ""
    plain: Callable[[dict[str, object]], object] | None = None

    @property
    def cap_name(self) -> str:
        """Name that its row caps go by."""
        return self.caps or self.name


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One parked call of a lane.

    rows: entries of the batch dimension.
    size: elements of one row of the sample, for the row cap.
    """

    lane: Lane
    arguments: Arguments
    rows: int
    size: int

    def group(self, key: Hashable, alone: Hashable) -> Hashable:
        """Name the calls that this one can share a forward with; both are of its request."""
        shape = signature(self.arguments, self.lane.shared, self.lane.optional)
        return (self.lane, self.size, shape, alone, None if self.lane.urgent else key)

    def unmarked(self) -> "Call":
        """Return the call as it is with nothing added to its rows, to measure it."""
        zeros = {
            name: torch.zeros_like(value)
            for name, value in self.arguments.items()
            if name in self.lane.marks and isinstance(value, torch.Tensor)
        }
        lane = replace(self.lane, run=self.lane.plain or self.lane.run)
        return replace(self, lane=lane, arguments={**self.arguments, **zeros})


def forward(calls: Sequence[Call], limit: int) -> list[object]:
    """Run calls of one group in one forward and give each its rows of the output.

    A batch of more than `limit` rows, which can only be a single call, is run in parts.
    """
    lane = calls[0].lane
    rows = [call.rows for call in calls]
    parts = filled([(call.arguments, call.rows) for call in calls], lane.optional)
    stacked = stack(parts, lane.shared)
    total = sum(rows)
    outputs = [
        lane.run(stacked if total <= limit else _part(lane, stacked, start, limit))
        for start in range(0, total, limit)
    ]
    return split(join_outputs(outputs), rows)


def _part(lane: Lane, stacked: Mapping[str, object], start: int, limit: int) -> dict[str, object]:
    return {
        name: value if name in lane.shared else slice_rows(value, start, start + limit)
        for name, value in stacked.items()
    }
