"""The engine's laws, with a tiny torch module as the denoiser."""

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from serve_app.engine.engine import Engine
from serve_app.engine.lane import Lane
from serve_app.engine.planner import Policy
from serve_app.engine.request import Request
from serve_app.fairness import Stake
from tests.engine.toys import Body, Denoiser, hold


def test_engine_alone_equals_any_batch(
    denoiser: Denoiser, lane: Lane, make_engine: Callable[..., Engine]
) -> None:
    engine = make_engine(max_rows=16)
    alone = [engine.submit(Request(Body(lane, seed, 3 + seed))).result(30) for seed in range(6)]
    hold(denoiser, engine, lane)
    futures = [engine.submit(Request(Body(lane, seed, 3 + seed))) for seed in range(6)]
    denoiser.gate.set()
    for future, expected in zip(futures, alone, strict=True):
        assert torch.allclose(future.result(30), expected, atol=1e-5)  # type: ignore[arg-type]
    assert max(denoiser.rows) >= 8


def test_engine_row_cap_is_never_exceeded(
    denoiser: Denoiser, lane: Lane, make_engine: Callable[..., Engine]
) -> None:
    engine = make_engine(max_rows=4)
    bodies = [Body(lane, rows=rows) for rows in (1, 2, 3, 7, 2, 2, 1)]
    for future in [engine.submit(Request(body)) for body in bodies]:
        future.result(30)
    assert max(denoiser.rows) <= 4


def test_engine_bound_of_a_lane_holds_beside_the_row_cap(
    denoiser: Denoiser, make_engine: Callable[..., Engine]
) -> None:
    engine = make_engine(max_rows=16)
    narrow = Lane("vae decode", denoiser, urgent=True, max_rows=3)
    bodies = [Body(narrow, rows=rows) for rows in (1, 2, 7, 2)]
    for future in [engine.submit(Request(body)) for body in bodies]:
        future.result(30)
    assert max(denoiser.rows) == 3


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
        future.result(30)
    assert set(denoiser.rows) <= {2, 3, 4, 6}
    assert denoiser.rows.count(3) == 5


def test_engine_exclusive_request_shares_no_urgent_forward_either(
    denoiser: Denoiser, lane: Lane, make_engine: Callable[..., Engine]
) -> None:
    engine = make_engine()
    hold(denoiser, engine, lane)
    urgent = Denoiser()
    decoder = Lane("decoder", urgent, urgent=True)
    requests = [Request(Body(decoder, steps=1, rows=3), exclusive=True)]
    requests += [Request(Body(decoder, steps=1)) for _ in range(2)]
    futures = [engine.submit(request) for request in requests]
    denoiser.gate.set()
    for future in futures:
        future.result(30)
    assert sorted(urgent.rows) == [3, 4]


def test_engine_applies_variant_before_its_forwards(
    denoiser: Denoiser, lane: Lane, make_engine: Callable[..., Engine]
) -> None:
    active: list[object] = []
    seen: list[tuple[object, object]] = []

    def run(arguments: dict[str, object]) -> object:
        denoiser.gate.wait(10)
        sample = arguments["sample"]
        assert isinstance(sample, torch.Tensor)
        seen.append((active[-1], sample[0, 0].item() > 0))
        return (torch.zeros_like(sample),)

    engine = make_engine(activate=active.append, turn_ticks=4)
    shared = Lane("denoiser", run)
    denoiser.gate.clear()
    futures = []
    for number in range(8):
        body = Body(shared, steps=12)
        body.start = torch.full((2, 8), 1.0 if number % 2 else -1.0)
        variant = "lora" if number % 2 else "base"
        futures.append(engine.submit(Request(body, variant=variant)))
    denoiser.gate.set()
    for future in futures:
        future.result(30)
    assert all((variant == "lora") == is_lora for variant, is_lora in seen)
    assert len(active) <= 12


def test_engine_body_without_calls_gives_its_result(make_engine: Callable[..., Engine]) -> None:
    assert make_engine().submit(Request(lambda: 5)).result(30) == 5


def test_engine_keeps_no_graph_of_what_was_computed(make_engine: Callable[..., Engine]) -> None:
    assert make_engine().submit(Request(torch.is_inference_mode_enabled)).result(30) is True


def test_park_outside_of_an_engine_runs_at_once(lane: Lane) -> None:
    assert Body(lane)().shape == (2, 8)


def test_snapshot_counts_what_was_done(lane: Lane, make_engine: Callable[..., Engine]) -> None:
    engine = make_engine()
    engine.submit(Request(Body(lane, steps=5))).result(30)
    engine.submit(Request(lambda: 1)).result(30)
    snapshot = engine.snapshot()
    assert (snapshot.forwards, snapshot.rows, snapshot.waiting) == (5, 10, 0)
    assert snapshot.succeeded >= 1
    assert snapshot.pictures_per_s > 0
    assert snapshot.rows_per_forward == 2
    assert snapshot.steps_per_s > 0
    assert {"start", "resume", "forward denoiser", "switch"} == set(snapshot.stage_s)
    assert all(0 <= seconds < 60 for seconds in snapshot.stage_s.values())
    assert 0 < snapshot.tick_s < 60
    assert (snapshot.switches, snapshot.failed, snapshot.cancelled) == (1, 0, 0)


def test_snapshot_counts_who_waits_and_who_is_at_work(
    denoiser: Denoiser, lane: Lane, make_engine: Callable[..., Engine]
) -> None:
    engine = make_engine(max_live=1, max_guests=0)
    slow = engine.submit(Request(Body(lane, steps=100_000)))
    waiting = [engine.submit(Request(Body(lane))) for _ in range(2)]
    deadline = time.monotonic() + 30
    while engine.snapshot().waiting < 2 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert engine.snapshot().waiting == 2
    slow.cancel()
    for future in waiting:
        future.result(30)
    found = engine.snapshot()
    assert (found.waiting, found.parked, found.cancelled) == (0, 0, 1)


def test_engine_plans_by_its_settings(make_engine: Callable[..., Engine]) -> None:
    limits = {"max_live": 3, "max_guests": 5, "turn_ticks": 6, "turn_groups": 7}
    assert make_engine(**limits)._planner._policy == Policy(**limits)


def test_engine_runs_urgent_lanes_by_rank(
    denoiser: Denoiser, lane: Lane, make_engine: Callable[..., Engine]
) -> None:
    engine, ran = make_engine(), list[str]()

    def net(name: str, rank: int) -> Lane:
        def run(arguments: dict[str, object]) -> object:
            ran.append(name)
            return (arguments["sample"],)

        return Lane(name, run, urgent=True, rank=rank)

    hold(denoiser, engine, lane)
    nets = [net("last", 2), net("first", 0), net("second", 1)]
    futures = [engine.submit(Request(Body(one, steps=1))) for one in nets]
    denoiser.gate.set()
    for future in futures:
        future.result(30)
    assert ran == ["first", "second", "last"]


@pytest.mark.parametrize("steps", [1, 3])
def test_engine_notes_when_a_request_came_how_far(
    lane: Lane, make_engine: Callable[..., Engine], steps: int
) -> None:
    request, before = Request(Body(lane, steps=steps)), time.monotonic()
    make_engine().submit(request).result(30)
    times = request.times
    assert before <= times.began <= times.steps_began < times.steps_ended <= times.ended
    assert times.ended <= time.monotonic()


def test_engine_shares_the_time_of_a_forward_by_rows(
    denoiser: Denoiser, lane: Lane, make_engine: Callable[..., Engine]
) -> None:
    engine = make_engine()
    hold(denoiser, engine, lane)
    few, many = Request(Body(lane, steps=5, rows=1)), Request(Body(lane, steps=5, rows=3))
    futures = [engine.submit(request) for request in (few, many)]
    denoiser.gate.set()
    for future in futures:
        future.result(30)
    assert many.spent.device_s == pytest.approx(3 * few.spent.device_s)
    assert (few.spent.row_steps, many.spent.row_steps) == (5, 15)


def test_engine_runs_the_rows_of_owners_in_turn(
    denoiser: Denoiser, lane: Lane, make_engine: Callable[..., Engine]
) -> None:
    engine = make_engine(max_rows=4, max_live=4)
    hold(denoiser, engine, lane)
    ended: list[str] = []
    futures = [engine.submit(Request(Body(lane), stake=Stake("heavy"))) for _ in range(20)]
    futures.append(engine.submit(Request(Body(lane), stake=Stake("light"))))
    for number, future in enumerate(futures):
        owner = "light" if number == 20 else "heavy"
        future.add_done_callback(lambda _, owner=owner: ended.append(owner))  # type: ignore[misc]
    denoiser.gate.set()
    for future in futures:
        future.result(30)
    assert ended.index("light") <= 4
    assert max(denoiser.rows) == 4


def test_engine_counts_rows_times_steps_of_the_denoiser_alone(
    lane: Lane, make_engine: Callable[..., Engine]
) -> None:
    engine, began = make_engine(max_rows=16), time.monotonic()
    steps = Request(Body(lane, steps=3, rows=2))
    begins = Request(Body(replace(lane, urgent=True), steps=3, rows=2))
    for future in [engine.submit(request) for request in (steps, begins)]:
        future.result(30)
    assert (steps.spent.row_steps, begins.spent.row_steps) == (6, 0)
    assert min(steps.spent.device_s, begins.spent.device_s) > 0
    assert steps.spent.device_s + begins.spent.device_s <= time.monotonic() - began
    assert steps.times.steps_began > 0 == begins.times.steps_began
