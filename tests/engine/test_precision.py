"""Half precision on the trained demo model is near float32; the benchmark that measures it."""

import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor as stock

from benchmarks.precision import engines, parts
from serve_app.pipelines.families import FAMILIES
from serve_app.pipelines.noise import draw_in_float32, randn_tensor
from training.generate import make_cases


def rows_of(lines: list[str]) -> dict[str, list[float]]:
    """Read the numbers of a table by the first cell of its rows."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return {name: [number(cell) for cell in rest] for name, *rest in cells}


def number(cell: str) -> float:
    return float(cell.rstrip("%")) / (100 if cell.endswith("%") else 1)


def test_engine_in_half_precision_paints_what_float32_does() -> None:
    found = rows_of(list(engines(make_cases(2, 1, 128), "cpu", steps=4)))
    assert list(found) == ["float32", "bfloat16", "float16"]
    mean, largest, *_ = found["float32"]
    assert (mean, largest) == (0, 0)
    assert 0 < found["float16"][0] < found["bfloat16"][0] < 3
    for alone, alone_largest, _, forward in (row[6:] for row in found.values()):
        assert (alone < 0.01, alone_largest <= 1, forward < 1e-5) == (True, True, True)


def test_parts_in_half_precision_are_nearer_than_all_of_them() -> None:
    found = rows_of(list(parts(make_cases(1, 1, 128), steps=4)))
    assert set(found) > {"text encoder", "UNet", "VAE", "all", "latents between steps"}
    for means in zip(*([row[0], row[3]] for row in found.values()), strict=True):
        assert max(means) < 4
        assert min(means) > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_seed_means_the_same_noise_in_half_precision(dtype: torch.dtype) -> None:
    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(3)

    wanted = stock((1, 4, 32, 32), generator(), dtype=torch.float32)
    found = randn_tensor((1, 4, 32, 32), generator(), dtype=dtype)
    assert found.dtype is dtype
    assert torch.equal(found, wanted.to(dtype))
    of_stock = stock((1, 4, 32, 32), generator(), dtype=dtype)
    assert float((of_stock - found).abs().max()) > 1, "else torch draws so by itself by now"
    several = [generator(), generator()]
    assert torch.equal(randn_tensor((2, 4, 32, 32), several, dtype=dtype)[1:], found)


def test_pipelines_of_all_families_draw_so() -> None:
    draw_in_float32()
    for family in FAMILIES.values():
        for cls in (*family.pipelines.values(), *family.controlled.values()):
            assert cls.prepare_latents.__globals__["randn_tensor"] is randn_tensor, cls
