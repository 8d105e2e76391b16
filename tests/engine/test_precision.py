"""Half precision on the trained demo model is near float32; the benchmark that measures it."""

import pytest
import torch

from benchmarks.precision import engines, parts
from training.generate import make_cases


def rows_of(lines: list[str]) -> dict[str, list[float]]:
    """Read the numbers of a table by the first cell of its rows."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return {name: [number(cell) for cell in rest] for name, *rest in cells}


def number(cell: str) -> float:
    return float(cell.rstrip("%")) / (100 if cell.endswith("%") else 1)


@pytest.mark.slow
def test_engine_in_half_precision_paints_what_float32_does() -> None:
    found = rows_of(list(engines(make_cases(2, 1, 128), "cpu", steps=4)))
    assert list(found) == ["float32", "bfloat16", "float16"]
    mean, largest, *_ = found["float32"]
    assert (mean, largest) == (0, 0)
    assert 0 < found["float16"][0] < found["bfloat16"][0] < 3
    for alone, alone_largest, _, forward in (row[6:] for row in found.values()):
        assert (alone < 0.01, alone_largest <= 1, forward < 1e-5) == (True, True, True)


@pytest.mark.long  # half precision of a VAE is slow on a CPU
def test_parts_in_half_precision_are_nearer_than_all_of_them() -> None:
    found = rows_of(list(parts(make_cases(1, 1, 128), steps=4)))
    assert set(found) > {"text encoder", "UNet", "VAE", "all", "latents between steps"}
    for means in zip(*([row[0], row[3]] for row in found.values()), strict=True):
        assert max(means) < 4
        assert min(means) > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_seed_means_the_same_noise_in_half_precision(dtype: torch.dtype) -> None:
    """By torch itself; pictures would have nothing in common otherwise."""
    drawn = [
        torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(3), dtype=one)
        for one in (torch.float32, dtype)
    ]
    assert torch.equal(drawn[0].to(dtype), drawn[1])
