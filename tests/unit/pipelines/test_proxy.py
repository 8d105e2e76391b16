"""What stands in for shared modules: what it shares, and what it makes of arguments."""

import pytest
import torch
from torch import nn

from serve_app.pipelines import proxy
from serve_app.pipelines.proxy import denoiser_stand_in, per_row, stand_in


def test_stand_in_is_the_module_but_for_its_forward_and_hooks():
    module = nn.Sequential(nn.Linear(2, 2))
    fired = []
    module.register_forward_hook(lambda *_: fired.append("forward"))
    module.register_forward_pre_hook(lambda *_: fired.append("before"))
    other = stand_in(module, lambda x: x + 1)
    assert other(torch.tensor(1.0)) == 2
    assert fired == []
    assert type(other) is type(module)
    assert next(other.parameters()) is next(module.parameters())
    other.register_forward_hook(lambda *_: fired.append("its own"))
    module(torch.zeros(1, 2))
    assert fired == ["before", "forward"]


@pytest.mark.parametrize(
    ("timestep", "is_unet", "wanted"),
    [
        (torch.tensor(7), True, torch.full((3,), 7.0)),
        (7, True, torch.full((3,), 7.0)),
        (torch.tensor([7.5], dtype=torch.float64), True, torch.full((3,), 7.5)),
        (torch.tensor([1, 2, 3]), True, torch.tensor([1.0, 2.0, 3.0])),
        (torch.tensor(7), False, torch.full((3,), 7.0)),
        (torch.tensor(7.5, dtype=torch.float16), False, torch.full((3,), 7.5).half()),
    ],
)
def test_timestep_becomes_one_for_each_row(timestep, is_unet, wanted):
    found = per_row(timestep, torch.zeros(3, 4, 2, 2), is_unet)
    assert found.dtype == wanted.dtype
    assert found.equal(wanted)


def test_denoiser_parks_what_a_pipeline_gives_it_by_name(monkeypatch):
    parked, around = [], []
    monkeypatch.setattr(proxy, "park", lambda call: parked.append(call) or "answer")

    def wrap(run):
        def wrapped(arguments):
            around.append(arguments)
            return run(arguments)

        return wrapped

    lane, sample = object(), torch.zeros(2, 4, 3, 5)
    made = denoiser_stand_in(nn.Linear(1, 1), lane, ("sample", "timestep", "states"), wrap)
    states = torch.ones(2, 7, 8)
    assert made(sample, torch.tensor(9), states, extra=None, return_dict=False) == "answer"
    (call,), (arguments,) = parked, around
    assert (call.lane, call.rows, call.size) == (lane, 2, 4 * 3 * 5)
    assert call.arguments is arguments
    assert list(arguments) == ["sample", "timestep", "states", "return_dict"]
    assert (arguments["sample"] is sample, arguments["states"] is states) == (True, True)
    assert arguments["timestep"].tolist() == [9, 9]
    assert arguments["timestep"].dtype == torch.float32
    with pytest.raises(AssertionError, match="tuples"):
        made(sample, torch.tensor(9), states)


def test_transformer_keeps_the_number_type_of_its_timestep(monkeypatch):
    monkeypatch.setattr(proxy, "park", lambda call: call.arguments["timestep"])
    names = ("hidden_states", "timestep")
    made = denoiser_stand_in(nn.Linear(1, 1), object(), names, lambda run: run)
    given = {"hidden_states": torch.zeros(2, 4), "return_dict": False}
    found = made(**given, timestep=torch.tensor(0.5, dtype=torch.float16))
    assert found.equal(torch.full((2,), 0.5, dtype=torch.float16))
