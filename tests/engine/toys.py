"""A made-up denoiser and sampler, to try the engine without diffusers."""

import threading

import torch
from torch import nn

from serve_app.engine.engine import Engine
from serve_app.engine.lane import Call, Lane
from serve_app.engine.request import Request
from serve_app.engine.weave import park

torch.set_num_threads(1)


class Denoiser:
    """A small random network that writes down what it was asked; can be told to fail."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 8)).eval()
        self.rows: list[int] = []
        self.fits = 1000
        self.is_lost = False
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def __call__(self, arguments: dict[str, object]) -> object:
        sample = arguments["sample"]
        assert isinstance(sample, torch.Tensor)
        self.entered.set()
        self.gate.wait(30)
        if self.is_lost:
            raise torch.AcceleratorError("the device is lost")
        if sample.shape[0] > self.fits:
            raise torch.OutOfMemoryError("no memory")
        if (sample > 1000).any():
            raise ValueError("a bad row")
        self.rows.append(sample.shape[0])
        return (self.net(sample),)


class Body:
    """Some steps of a made-up sampler."""

    def __init__(self, lane: Lane, seed: int = 0, steps: int = 5, rows: int = 2) -> None:
        self.lane = lane
        self.steps = steps
        self.start = torch.randn(rows, 8, generator=torch.Generator().manual_seed(seed))
        self.done = 0
        self.fails_at = -1

    def __call__(self) -> torch.Tensor:
        x = self.start
        for step in range(self.steps):
            if step == self.fails_at:
                raise KeyError("the scheduler broke")
            output = park(Call(self.lane, {"sample": x, "return_dict": False}, len(x), 8))
            assert isinstance(output, tuple)
            x = x + 0.1 * output[0]
            self.done = step + 1
        return x


def hold(denoiser: Denoiser, engine: Engine, lane: Lane) -> Request:
    """Keep the engine inside a forward until `denoiser.gate` is set."""
    denoiser.gate.clear()
    denoiser.entered.clear()
    request = Request(Body(lane, seed=99, steps=1))
    engine.submit(request)
    assert denoiser.entered.wait(30)
    return request
