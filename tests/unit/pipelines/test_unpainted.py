"""What is left to paint, counted in cells, against the pixels themselves."""

import numpy as np
import pytest

from serve_app.pipelines.unpainted import Unpainted

SIZE = (40, 56)  # cells of 8 pixels


def box_of(new):
    down, across = np.flatnonzero(new.any(1)), np.flatnonzero(new.any(0))
    return across[0], down[0], across[-1] + 1, down[-1] + 1


def marked(*pixels):
    new = np.zeros(SIZE, bool)
    for row, column in pixels:
        new[row, column] = True
    return new


@pytest.mark.parametrize("seed", range(20))
def test_bounds_are_those_of_the_pixels(seed):
    chosen = np.random.default_rng(seed)
    new = marked(*(chosen.integers(0, SIZE) for _ in range(1 + seed % 3)))
    made = Unpainted.of(new)
    assert made.bounds() == box_of(new)
    assert made.counts.sum() == new.sum()


def test_what_is_painted_bounds_nothing():
    assert Unpainted.of(marked()).bounds() is None
    rest = Unpainted.of(marked((3, 5), (30, 41))).without((40, 24, 48, 32))
    assert rest.bounds() == (5, 3, 6, 4)
    assert rest.without((0, 0, 8, 8)).bounds() is None


def test_whole_cells_count_as_all_their_pixels():
    cells = np.zeros((5, 7), bool)
    cells[1, 2] = cells[3, 2] = True
    new = np.kron(cells, np.ones((8, 8), bool))
    made, same = Unpainted.of_cells(cells), Unpainted.of(new)
    assert made.bounds() == same.bounds() == box_of(new)
    assert np.array_equal(made.counts, same.counts)
