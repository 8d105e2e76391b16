"""The engine's benchmark runs, on as little as it takes."""

from dataclasses import replace

import pytest

from benchmarks.engine import MODELS, compare, load, row


@pytest.mark.slow
@pytest.mark.parametrize("name", ["overhead-bound, two sizes", "overhead-bound, equal requests"])
def test_compare_gives_a_row_with_both_ratios_and_the_caps(name: str) -> None:
    model = replace(MODELS[name], steps=(2, 3), requests=3)
    written = row(name, compare(load(model), model, rounds=1))
    cells = [cell.strip() for cell in written.strip("|").split("|")]
    assert cells[:2] == [name, "3"]
    assert all(float(cell) > 0 for cell in cells[2:10])
    assert all(int(cap) in (2, 4, 8, 16, 32) for cap in cells[10].split(","))
