"""When a graph's outputs are taken for those of the module that it was made of."""

import pytest
import torch

from serve_app.pipelines.compiled import _agree

EXPECTED = torch.tensor([[1.0, -8.0, 3.0]])


@pytest.mark.parametrize(
    ("dtype", "share"),
    [(torch.float32, 3.45e-4), (torch.float16, 0.03125), (torch.bfloat16, 0.088)],
)
def test_outputs_may_differ_by_the_root_of_what_numbers_are_rounded_by(dtype, share):
    """Of the largest number, whatever its sign."""
    for factor, is_same in ((0, True), (0.9, True), (1.1, False)):
        found = EXPECTED + torch.tensor([0, 0, 8 * share * factor])
        assert _agree((found,), (EXPECTED.to(dtype),)) is is_same
        assert _agree((2 * EXPECTED - found,), (EXPECTED.to(dtype),)) is is_same


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_outputs_that_are_no_numbers_are_not_the_same(bad):
    found = EXPECTED.clone()
    found[0, 0] = bad
    assert not _agree((found,), (EXPECTED,))
    assert not _agree((found,), (found,))
