"""`Unpainted`: what is new of a picture that grows and still without a window, by latent cells.

Windows have the native size and cover each other by half. The next one is always the one that has
most of what is known in it, so the picture grows outward from what was there. They begin at cells,
so all that counts of a cell is how much of it is new, and where that begins and ends.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from serve_app.pipelines.compose import Box, Framing, box_around
from serve_app.pipelines.specs import window_starts

__all__ = ["CELL_PX", "Unpainted"]

Counts = NDArray[np.int64]
_OVERLAP = 0.5  # of a window that the next one covers too
CELL_PX = 8


@dataclass(frozen=True, slots=True, eq=False)
class Unpainted:
    """Arrays are (h, w), a value per cell.

    counts: of new pixels. firsts, lasts: rows, then columns, of the first and behind the last of
    them within the cell.
    """

    counts: Counts
    firsts: tuple[Counts, Counts]
    lasts: tuple[Counts, Counts]

    @classmethod
    def of(cls, new: NDArray[np.bool_]) -> Self:
        """Count what is new, (H, W); sides are multiples of a cell."""
        height, width = new.shape
        cells = new.reshape(height // CELL_PX, CELL_PX, width // CELL_PX, CELL_PX)
        down, across = np.asarray(cells.any(3)).swapaxes(1, 2), np.asarray(cells.any(1))
        return cls(
            cells.sum((1, 3)),
            (down.argmax(2), across.argmax(2)),
            (CELL_PX - down[..., ::-1].argmax(2), CELL_PX - across[..., ::-1].argmax(2)),
        )

    @classmethod
    def of_cells(cls, new: NDArray[np.bool_]) -> Self:
        """Count cells, (h, w), that are new as a whole."""
        counts = new.astype(np.int64) * CELL_PX**2
        none, whole = np.zeros_like(counts), np.full_like(counts, CELL_PX)
        return cls(counts, (none, none), (whole, whole))

    def bounds(self) -> Box | None:
        """Return the box of all that is new, pixels."""
        if not self.counts.any():
            return None
        sides: list[int] = []
        for axis in (1, 0):
            inside = np.flatnonzero(self.counts.any(1 - axis))
            first, last = int(inside[0]), int(inside[-1])
            starts = np.take(self.firsts[axis], first, axis)[np.take(self.counts, first, axis) > 0]
            ends = np.take(self.lasts[axis], last, axis)[np.take(self.counts, last, axis) > 0]
            sides += [first * CELL_PX + int(starts.min()), last * CELL_PX + int(ends.max())]
        left, right, top, bottom = sides
        return left, top, right, bottom

    def without(self, box: Box) -> Self:
        """Take away what a window paints."""
        left, top, right, bottom = (side // CELL_PX for side in box)
        counts = self.counts.copy()
        counts[top:bottom, left:right] = 0
        return replace(self, counts=counts)

    def next_box(self, framing: Framing) -> Box | None:
        """Choose the window with the least that is new, of those with any."""
        white = self.bounds()
        if white is None:
            return None
        height, width = (side * CELL_PX for side in self.counts.shape)
        left, top, right, bottom = box_around(
            white, (width, height), framing.native_px, framing.padding_px
        )
        rows, columns = _spans(top, bottom, framing), _spans(left, right, framing)
        sums = np.pad(self.counts, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
        down, across = np.diff(sums[rows // CELL_PX], axis=1)[:, 0], columns // CELL_PX
        found = np.diff(down[:, across], axis=2)[..., 0]
        row, column = np.unravel_index(
            np.where(found > 0, found, np.iinfo(found.dtype).max).argmin(), found.shape
        )
        (upper, lower), (start, end) = rows[row].tolist(), columns[column].tolist()
        return start, upper, end, lower

    def num_windows(self, framing: Framing) -> int:
        """Count the windows that paint it."""
        rest, count = self, 0
        while box := rest.next_box(framing):
            rest, count = rest.without(box), count + 1
        return count


def _spans(first: int, last: int, framing: Framing) -> Counts:
    """Place windows along an axis, (n, 2): where they start and end, pixels."""
    length = min(framing.native_px, last - first)
    starts = window_starts((last - first) // CELL_PX, length // CELL_PX, _OVERLAP)
    begun = first + np.array(starts) * CELL_PX
    return np.stack([begun, begun + length], axis=1)
