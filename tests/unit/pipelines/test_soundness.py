"""Weights that would paint noise, told before they serve, in words that name one."""

import pytest
import torch
from torch import nn

from serve_app.pipelines.addons.misfit import Unfit
from serve_app.pipelines.soundness import (
    check_filled,
    check_finite,
    check_shapes,
    check_tensor,
    detach_from_files,
    settle,
)

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_number_that_is_not_finite_is_told(dtype, bad):
    good = torch.ones(2, 3).to(dtype)
    check_tensor("it", good)
    if bad != bad or dtype.itemsize > 1:  # noqa: PLR0124  # NaN; e4m3fn has no infinity
        harmed = torch.ones(2, 3)
        harmed[1, 1] = bad
        with pytest.raises(Unfit) as caught:
            check_tensor("its weight", harmed.to(dtype))
        assert str(caught.value) == "found NaN or infinity in its weight, expected finite numbers"


def test_what_cannot_be_infinite_is_not_looked_at():
    for tensor in (torch.empty(0), torch.arange(3), torch.tensor([True])):
        check_tensor("it", tensor)


def test_tensor_of_a_module_is_named_with_its_part():
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    check_finite("unet", module)
    module[1].running_var[0] = torch.inf
    with pytest.raises(Unfit, match=r"NaN or infinity in unet: 1\.running_var"):
        check_finite("unet", module)
    with pytest.raises(Unfit, match="NaN or infinity in vae: 1"):
        settle("vae", module, torch.device("cpu"))


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"b": (3,)}, "found no a, expected one of the shape (2, 1)"),
        ({"a": (1, 2), "b": (3,)}, "found a of the shape (1, 2), expected (2, 1)"),
        (
            {"a": (2, 1), "b": (3,), "z": (1,), "c": (1,), "y": (1,)},
            "found c, which the model lacks, expected 2 tensors, not it",
        ),
    ],
)
def test_tensors_are_those_that_are_wanted(found, message):
    wanted = {"a": torch.ones(2, 1), "b": torch.ones(3)}
    check_shapes(wanted, wanted)
    with pytest.raises(Unfit) as caught:
        check_shapes({name: torch.ones(shape) for name, shape in found.items()}, wanted)
    assert str(caught.value) == message


def test_weights_and_buffers_without_numbers_are_told():
    check_filled("unet", nn.BatchNorm1d(2))
    with torch.device("meta"):
        empty = nn.Linear(2, 3)
    with pytest.raises(Unfit) as caught:
        check_filled("unet", empty)
    assert (
        str(caught.value) == "found no tensor for weight of unet, expected one of the shape (3, 2)"
    )
    buffer = nn.BatchNorm1d(2)
    buffer.running_mean = buffer.running_mean.to("meta")
    with pytest.raises(Unfit, match="no tensor for running_mean"):
        check_filled("unet", buffer)


@pytest.mark.parametrize("is_last", [False, True])
def test_settled_module_is_in_memory_of_its_own_and_learns_nothing(is_last):
    module = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = {name: tensor.data_ptr() for name, tensor in module.state_dict().items()}
    settle("unet", module, torch.device("cpu"), channels_last=is_last)
    assert not module.training
    assert not any(parameter.requires_grad for parameter in module.parameters())
    for name, tensor in module.state_dict().items():
        assert tensor.data_ptr() != before[name], name
    assert module[0].weight.is_contiguous(memory_format=torch.channels_last) is is_last


def test_detached_weights_are_the_same_numbers():
    module = nn.Conv2d(4, 4, 3)
    values = module.weight.detach().clone()
    detach_from_files(module, channels_last=True)
    assert module.weight.equal(values)
