"""What goes wrong around the engine harms nobody else: cancels, errors, memory, shutdown."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError

import pytest
import torch

from serve_app import errors
from serve_app.engine.engine import Engine
from serve_app.engine.lane import Lane
from serve_app.engine.metrics import EngineSnapshot
from serve_app.engine.request import Request
from serve_app.engine.row_cap_profiler import RowCapProfiler
from tests.engine.toys import Body, Denoiser, hold


def test_engine_failing_request_leaves_neighbours_unharmed(
    denoiser: Denoiser, lane: Lane, make_engine: Callable[..., Engine]
) -> None:
    engine = make_engine()
    expected = engine.submit(Request(Body(lane, seed=1))).result(30)
    hold(denoiser, engine, lane)
    broken, poisoned = Body(lane), Body(lane)
    broken.fails_at = 2
    poisoned.start = torch.full((2, 8), 5000.0)
    futures = [engine.submit(Request(body)) for body in (broken, Body(lane, seed=1), poisoned)]
    denoiser.gate.set()
    assert torch.allclose(futures[1].result(30), expected, atol=1e-5)  # type: ignore[arg-type]
    with pytest.raises(KeyError):
        futures[0].result(30)
    with pytest.raises(ValueError, match="a bad row"):
        futures[2].result(30)
    engine.check_health()
    assert (engine.snapshot().failed, engine.snapshot().parked) == (2, 0)


def test_whoever_is_told_finds_everything_counted(
    denoiser: Denoiser, lane: Lane, make_engine: Callable[..., Engine]
) -> None:
    """Callbacks run before the engine goes on, so nothing that it counts later can help."""
    engine, found = make_engine(), list[EngineSnapshot]()
    broken = Body(lane)
    broken.fails_at = 2
    for body in (Body(lane), broken):
        request = Request(body)
        request.future.add_done_callback(lambda _: found.append(engine.snapshot()))
        engine.submit(request).exception(30)
    engine.close()
    assert [(one.succeeded, one.failed, one.forwards) for one in found] == [(1, 0, 5), (1, 1, 7)]
    assert found[1].rows == sum(denoiser.rows)
    assert found[1].stage_s == engine.snapshot().stage_s


def test_engine_does_not_count_the_picture_that_warms_up(
    lane: Lane, make_engine: Callable[..., Engine]
) -> None:
    engine = make_engine()
    first, asked = Request(Body(lane)), Request(Body(lane, seed=1))
    first.measures = True
    for request in (first, asked):
        engine.submit(request).result(30)
    assert (engine.snapshot().succeeded, engine.snapshot().failed) == (1, 0)
    broken = Body(lane)
    broken.fails_at = 2
    request = Request(broken)
    request.measures = True
    assert engine.submit(request).exception(30) is not None
    assert engine.snapshot().failed == 0


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
    result = futures[1].result(30)
    alone = engine.submit(Request(Body(lane, seed=1, steps=300))).result(30)
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
    engine.submit(Request(Body(lane))).result(30)
    assert body.done == 0
    assert engine.snapshot().cancelled == 1


def test_engine_cancelled_in_urgent_lane_ends(
    denoiser: Denoiser, lane: Lane, make_engine: Callable[..., Engine]
) -> None:
    engine = make_engine()
    decoder = Denoiser()
    body = Body(Lane("decoder", decoder, urgent=True), steps=10_000)
    future = engine.submit(Request(body))
    assert decoder.entered.wait(30)
    assert future.cancel()
    engine.submit(Request(Body(lane))).result(30)
    assert engine.snapshot().parked == 0


def test_engine_out_of_memory_halves_the_cap_and_retries(
    denoiser: Denoiser,
    lane: Lane,
    make_engine: Callable[..., Engine],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, freed = make_engine(), list[int]()
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append(1))
    expected = engine.submit(Request(Body(lane, seed=1))).result(30)
    denoiser.fits = 3
    hold(denoiser, engine, lane)
    futures = [engine.submit(Request(Body(lane, seed))) for seed in range(6)]
    denoiser.gate.set()
    results = [future.result(30) for future in futures]
    assert torch.allclose(results[1], expected, atol=1e-5)  # type: ignore[call-overload]
    assert engine.snapshot().out_of_memory == len(freed) >= 1
    assert engine.snapshot().row_caps["denoiser/8"] == 3


def test_engine_out_of_memory_with_one_row_fails_the_request(
    denoiser: Denoiser, lane: Lane, make_engine: Callable[..., Engine]
) -> None:
    engine = make_engine()
    denoiser.fits = 0
    with pytest.raises(errors.OutOfMemory, match="no memory") as caught:
        engine.submit(Request(Body(lane))).result(30)
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)
    engine.check_health()
    assert engine.snapshot().out_of_memory == 2  # with two rows, and with one


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
        broken.result(30)
    fine.result(30)


def test_engine_restores_a_variant_after_a_switch_that_failed_half_way(
    lane: Lane, make_engine: Callable[..., Engine]
) -> None:
    applied: list[object] = []

    def activate(variant: object) -> None:
        applied.append(variant)  # the modules are changed, and then it fails
        if variant == "broken":
            raise ValueError("no such weights")

    engine = make_engine(activate=activate)
    for variant in ("fine", "broken", "fine", "fine"):
        future = engine.submit(Request(Body(lane), variant=variant))
        assert isinstance(future.exception(30), ValueError) == (variant == "broken")
    assert applied == ["fine", "broken", "fine"]


def test_engine_switch_back_that_fails_ends_those_it_was_for_and_no_others(
    denoiser: Denoiser, lane: Lane, make_engine: Callable[..., Engine]
) -> None:
    """They have begun, and wait for their turn."""
    applied: list[object] = []

    def activate(variant: object) -> None:
        applied.append(variant)
        if variant == "first" and applied.count("first") == 2:
            raise ValueError("no such weights")

    engine = make_engine(activate=activate, turn_ticks=1)
    hold(denoiser, engine, lane)
    first, second = (engine.submit(Request(Body(lane), variant=one)) for one in ("first", "second"))
    denoiser.gate.set()
    with pytest.raises(ValueError, match="no such weights"):
        first.result(30)
    second.result(30)
    assert applied[:4] == [None, "first", "second", "first"]
    engine.check_health()
    assert (engine.snapshot().failed, engine.snapshot().parked) == (1, 0)


def test_nobody_gets_in_while_the_door_is_closed(
    lane: Lane, make_engine: Callable[..., Engine]
) -> None:
    engine, futures = make_engine(), []
    caller = threading.Thread(target=lambda: futures.append(engine.submit(Request(Body(lane)))))
    with engine._door:
        caller.start()
        caller.join(0.05)
        assert caller.is_alive()
    caller.join(30)
    futures[0].result(30)


def wait_until_idle(engine: Engine) -> None:
    while not engine._is_idle:
        time.sleep(0.001)


def test_engine_stuck_forward_fails_the_health_check(
    denoiser: Denoiser, lane: Lane, make_engine: Callable[..., Engine]
) -> None:
    engine = make_engine(stall_timeout_s=0.05)
    wait_until_idle(engine)
    engine.check_health()
    hold(denoiser, engine, lane)
    time.sleep(0.1)
    with pytest.raises(RuntimeError, match="stuck"):
        engine.check_health()
    denoiser.gate.set()


def test_engine_is_healthy_before_it_first_sleeps(
    make_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_go_on = threading.Event(), threading.Event()

    def measure(*_: object) -> None:
        begun.set()
        may_go_on.wait(30)

    monkeypatch.setattr(RowCapProfiler, "measure", measure)
    engine = make_engine()
    assert begun.wait(30)
    engine.check_health()
    may_go_on.set()


def test_engine_idle_for_long_is_healthy(lane: Lane, make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(stall_timeout_s=0.01)
    engine.submit(Request(Body(lane))).result(30)
    wait_until_idle(engine)
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
            future.result(30)
    engine.close()
    with pytest.raises(errors.ReplicaLost):
        engine.submit(Request(Body(lane)))
    with pytest.raises(RuntimeError) as caught:
        engine.check_health()
    assert isinstance(caught.value.__cause__, torch.AcceleratorError)


def test_engine_that_dies_waits_for_a_request_that_is_coming_in(
    denoiser: Denoiser, lane: Lane, make_engine: Callable[..., Engine]
) -> None:
    """Else it would look for requests a moment too early, and nobody would fail that one."""
    engine = make_engine()
    held = hold(denoiser, engine, lane)
    denoiser.is_lost = True
    with engine._door:
        denoiser.gate.set()
        while engine._death is None:
            time.sleep(0.001)
        engine._thread.join(0.05)
        assert engine._thread.is_alive()
        assert not held.future.done()
    with pytest.raises(errors.ReplicaLost):
        held.future.result(30)


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
    assert (engine.snapshot().waiting, engine.snapshot().parked) == (0, 0)
