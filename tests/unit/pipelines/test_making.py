"""Tensors that are made while modules are constructed have the dtypes of torch's own default."""

import numpy as np
import pytest
import torch
from torch import nn

from serve_app.pipelines.construction import _Making

MADE = {
    "zeros": lambda: torch.zeros(2),
    "of a named dtype": lambda: torch.zeros(2, dtype=torch.float64),
    "of a dtype that is none": lambda: torch.ones(2, dtype=None),
    "inferred, of a named dtype": lambda: torch.tensor([1.5], dtype=torch.float64),
    "evenly spaced": lambda: torch.linspace(0, 1, 3),
    "drawn": lambda: torch.randn(2),
    "of floats": lambda: torch.tensor([1.5, 2.5]),
    "of integers": lambda: torch.tensor([1, 2]),
    "of flags": lambda: torch.tensor([True]),
    "full of a float": lambda: torch.full((2,), 1.5),
    "full of an integer": lambda: torch.full((2,), 1),
    "counted": lambda: torch.arange(3),
    "counted in halves": lambda: torch.arange(0, 2, 0.5),
    "of an array": lambda: torch.tensor(np.zeros(2)),
    "of a tensor": lambda: torch.tensor(torch.zeros(2, dtype=torch.float64).numpy()),
    "like another": lambda: torch.zeros_like(torch.zeros(2, dtype=torch.float64)),
}


@pytest.fixture
def default():
    before = torch.get_default_dtype()
    yield torch.set_default_dtype
    torch.set_default_dtype(before)


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_tensor_has_the_dtype_that_a_default_would_give_it(make, default):
    with _Making(torch.float16):
        made = make()
    default(torch.float16)
    assert made.dtype == make().dtype


@pytest.mark.parametrize("draws", [True, False])
def test_weights_are_drawn_unless_they_need_not(draws):
    with _Making(torch.float32, draws=draws):
        layer = nn.Linear(4, 4, device="cpu")
        before = layer.weight.clone()
        assert nn.init.normal_(layer.weight) is layer.weight
        assert torch.equal(layer.weight, before) is not draws
        assert nn.init.constant_(tensor=layer.weight, val=3.0) is layer.weight
    assert bool((layer.weight == 3).all()) is draws
