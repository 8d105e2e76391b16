"""The engine's laws, with a tiny torch module as the denoiser."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError

import pytest
import torch
from torch import nn

from serve_app import errors
from serve_app.config import EngineConfig
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
        self.gate.wait(10)
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


@pytest.fixture
def denoiser() -> Denoiser:
    return Denoiser()


@pytest.fixture
def lane(denoiser: Denoiser) -> Lane:
    return Lane("denoiser", denoiser)


@pytest.fixture
def make_engine() -> Iterator[Callable[..., Engine]]:
    made: list[Engine] = []

    def make(activate: Callable[[object], None] = lambda _: None, **settings: object) -> Engine:
        made.append(Engine(EngineConfig.model_validate(settings), activate))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


def hold(denoiser: Denoiser, engine: Engine, lane: Lane) -> Request:
    """Keep the engine inside a forward until `denoiser.gate` is set."""
    denoiser.gate.clear()
    denoiser.entered.clear()
    request = Request(Body(lane, seed=99, steps=1))
    engine.submit(request)
    assert denoiser.entered.wait(5)
    return request


def test_engine_alone_equals_any_batch(
    denoiser: Denoiser, lane: Lane, make_engine: Callable[..., Engine]
) -> None:
    engine = make_engine(max_rows=16)
    alone = [engine.submit(Request(Body(lane, seed, 3 + seed))).result(10) for seed in range(6)]
    hold(denoiser, engine, lane)
    futures = [engine.submit(Request(Body(lane, seed, 3 + seed))) for seed in range(6)]
    denoiser.gate.set()
    for future, expected in zip(futures, alone, strict=True):
        assert torch.allclose(future.result(10), expected, atol=1e-5)  # type: ignore[arg-type]
    assert max(denoiser.rows) >= 8


def test_engine_row_cap_is_never_exceeded(
    denoiser: Denoiser, lane: Lane, make_engine: Callable[..., Engine]
) -> None:
    engine = make_engine(max_rows=4)
    bodies = [Body(lane, rows=rows) for rows in (1, 2, 3, 7, 2, 2, 1)]
    for future in [engine.submit(Request(body)) for body in bodies]:
        future.result(10)
    assert max(denoiser.rows) <= 4


def test_engine_exclusive_request_shares_no_forward(
    denoiser: Denoiser, lane: Lane, make_engine: Callable[..., Engine]
) -> None:
    engine = make_engine()
    hold(denoiser, engine, lane)
    requests = [Request(Body(lane, rows=3), exclusive=True)]
    requests += [Request(Body(lane)) for _ in range(3)]
    futures = [engine.submit(request) for request in requests]
    denoiser.gate.set()
    for future in futures:
        future.result(10)
    assert set(denoiser.rows) <= {2, 3, 4, 6}
    assert denoiser.rows.count(3) == 5


def test_engine_failing_request_leaves_neighbours_unharmed(
    denoiser: Denoiser, lane: Lane, make_engine: Callable[..., Engine]
) -> None:
    engine = make_engine()
    expected = engine.submit(Request(Body(lane, seed=1))).result(10)
    hold(denoiser, engine, lane)
    broken, poisoned = Body(lane), Body(lane)
    broken.fails_at = 2
    poisoned.start = torch.full((2, 8), 5000.0)
    futures = [engine.submit(Request(body)) for body in (broken, Body(lane, seed=1), poisoned)]
    denoiser.gate.set()
    assert torch.allclose(futures[1].result(10), expected, atol=1e-5)  # type: ignore[arg-type]
    with pytest.raises(KeyError):
        futures[0].result(10)
    with pytest.raises(ValueError, match="a bad row"):
        futures[2].result(10)
    engine.check_health()


def test_engine_cancelled_while_parked_frees_its_rows(
    denoiser: Denoiser, lane: Lane, make_engine: Callable[..., Engine]
) -> None:
    engine = make_engine()
    hold(denoiser, engine, lane)
    leaves, stays = Request(Body(lane, steps=10_000)), Request(Body(lane, seed=1, steps=300))
    futures = [engine.submit(leaves), engine.submit(stays)]
    denoiser.gate.set()
    while not leaves.body.done:  # type: ignore[attr-defined]
        time.sleep(0.001)
    assert futures[0].cancel()
    result = futures[1].result(10)
    alone = engine.submit(Request(Body(lane, seed=1, steps=300))).result(10)
    assert torch.allclose(result, alone, atol=1e-5)  # type: ignore[arg-type]
    assert engine.snapshot().parked == 0
    assert denoiser.rows[-1] == 2


def test_engine_cancelled_before_start_never_runs(
    denoiser: Denoiser, lane: Lane, make_engine: Callable[..., Engine]
) -> None:
    engine = make_engine()
    hold(denoiser, engine, lane)
    body = Body(lane)
    future = engine.submit(Request(body))
    assert future.cancel()
    denoiser.gate.set()
    engine.submit(Request(Body(lane))).result(10)
    assert body.done == 0
    assert engine.snapshot().cancelled == 1


def test_engine_cancelled_in_urgent_lane_ends(
    denoiser: Denoiser, lane: Lane, make_engine: Callable[..., Engine]
) -> None:
    engine = make_engine()
    decoder = Denoiser()
    body = Body(Lane("decoder", decoder, urgent=True), steps=10_000)
    future = engine.submit(Request(body))
    assert decoder.entered.wait(5)
    assert future.cancel()
    engine.submit(Request(Body(lane))).result(10)
    assert engine.snapshot().parked == 0


def test_engine_out_of_memory_halves_the_cap_and_retries(
    denoiser: Denoiser, lane: Lane, make_engine: Callable[..., Engine]
) -> None:
    engine = make_engine()
    expected = engine.submit(Request(Body(lane, seed=1))).result(10)
    denoiser.fits = 3
    hold(denoiser, engine, lane)
    futures = [engine.submit(Request(Body(lane, seed))) for seed in range(6)]
    denoiser.gate.set()
    results = [future.result(10) for future in futures]
    assert torch.allclose(results[1], expected, atol=1e-5)  # type: ignore[call-overload]
    assert engine.snapshot().out_of_memory >= 1
    assert engine.snapshot().row_caps["denoiser/8"] <= 3


def test_engine_out_of_memory_with_one_row_fails_the_request(
    denoiser: Denoiser, lane: Lane, make_engine: Callable[..., Engine]
) -> None:
    engine = make_engine()
    denoiser.fits = 0
    with pytest.raises(errors.OutOfMemory):
        engine.submit(Request(Body(lane))).result(10)
    engine.check_health()


def test_engine_applies_variant_before_its_forwards(
    denoiser: Denoiser, lane: Lane, make_engine: Callable[..., Engine]
) -> None:
    active: list[object] = []
    seen: list[tuple[object, object]] = []

    def run(arguments: dict[str, object]) -> object:
        sample = arguments["sample"]
        assert isinstance(sample, torch.Tensor)
        seen.append((active[-1], sample[0, 0].item() > 0))
        return (torch.zeros_like(sample),)

    engine = make_engine(activate=active.append, turn_ticks=4)
    futures = []
    for number in range(8):
        body = Body(Lane("denoiser", run), steps=12)
        body.start = torch.full((2, 8), 1.0 if number % 2 else -1.0)
        variant = "lora" if number % 2 else "base"
        futures.append(engine.submit(Request(body, variant=variant)))
    for future in futures:
        future.result(10)
    assert all((variant == "lora") == is_lora for variant, is_lora in seen)
    assert len(active) <= 12


def test_engine_variant_that_cannot_be_applied_fails_only_its_requests(
    lane: Lane, make_engine: Callable[..., Engine]
) -> None:
    def activate(variant: object) -> None:
        if variant == "broken":
            raise ValueError("no such weights")

    engine = make_engine(activate=activate)
    broken = engine.submit(Request(Body(lane), variant="broken"))
    fine = engine.submit(Request(Body(lane), variant="fine"))
    with pytest.raises(ValueError, match="no such weights"):
        broken.result(10)
    fine.result(10)


def test_engine_measuring_request_sets_the_row_cap(
    denoiser: Denoiser, make_engine: Callable[..., Engine]
) -> None:
    def run(arguments: dict[str, object]) -> object:
        sample = arguments["sample"]
        assert isinstance(sample, torch.Tensor)
        time.sleep(0.002 * max(4, len(sample)))
        return (sample,)

    engine = make_engine(max_rows=32)
    request = Request(Body(Lane("denoiser", run)), measures=True)
    engine.submit(request).result(30)
    assert engine.snapshot().row_caps == {"denoiser/8": 4}


def test_engine_stuck_forward_fails_the_health_check(
    denoiser: Denoiser, lane: Lane, make_engine: Callable[..., Engine]
) -> None:
    engine = make_engine(stall_timeout_s=0.05)
    engine.check_health()
    hold(denoiser, engine, lane)
    time.sleep(0.1)
    with pytest.raises(RuntimeError, match="stuck"):
        engine.check_health()
    denoiser.gate.set()


def test_engine_idle_for_long_is_healthy(lane: Lane, make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(stall_timeout_s=0.01)
    engine.submit(Request(Body(lane))).result(10)
    time.sleep(0.05)
    engine.check_health()


def test_engine_lost_device_kills_it_and_fails_all(
    denoiser: Denoiser, lane: Lane, make_engine: Callable[..., Engine]
) -> None:
    engine = make_engine()
    held = hold(denoiser, engine, lane)
    denoiser.is_lost = True
    futures = [held.future, *(engine.submit(Request(Body(lane))) for _ in range(3))]
    denoiser.gate.set()
    for future in futures:
        with pytest.raises(errors.ReplicaLost):
            future.result(10)
    engine.close()
    with pytest.raises(errors.ReplicaLost):
        engine.submit(Request(Body(lane)))
    with pytest.raises(RuntimeError):
        engine.check_health()


def test_engine_close_with_drain_finishes_the_work(
    denoiser: Denoiser, lane: Lane, make_engine: Callable[..., Engine]
) -> None:
    engine = make_engine()
    futures = [engine.submit(Request(Body(lane, steps=50))) for _ in range(4)]
    engine.close(drain_s=10)
    assert all(future.done() and future.exception() is None for future in futures)
    with pytest.raises(errors.ReplicaLost):
        engine.submit(Request(Body(lane)))


def test_engine_close_fails_what_is_left(
    denoiser: Denoiser, lane: Lane, make_engine: Callable[..., Engine]
) -> None:
    engine = make_engine()
    futures = [engine.submit(Request(Body(lane, steps=100_000))) for _ in range(40)]
    engine.close()
    for future in futures:
        with pytest.raises((errors.ReplicaLost, CancelledError)):
            future.result(0)
    engine.close()


def test_engine_body_without_calls_gives_its_result(make_engine: Callable[..., Engine]) -> None:
    assert make_engine().submit(Request(lambda: 5)).result(10) == 5


def test_park_outside_of_an_engine_runs_at_once(lane: Lane) -> None:
    assert Body(lane)().shape == (2, 8)


def test_snapshot_counts_what_was_done(lane: Lane, make_engine: Callable[..., Engine]) -> None:
    engine = make_engine()
    engine.submit(Request(Body(lane, steps=5))).result(10)
    engine.submit(Request(lambda: 1)).result(10)
    snapshot = engine.snapshot()
    assert (snapshot.forwards, snapshot.rows, snapshot.waiting) == (5, 10, 0)
    assert snapshot.succeeded >= 1
    assert snapshot.rows_per_forward == 2
    assert snapshot.steps_per_s > 0
    assert {"start", "resume", "forward denoiser"} <= set(snapshot.stage_s)
