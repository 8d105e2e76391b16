"""What the engine counts: totals since the start, rates of the last seconds."""

import dataclasses

import pytest

from serve_app.engine.metrics import Counters, EngineSnapshot, total
from serve_app.engine.request import Outcome, Progress, Request, Spent, Times
from serve_app.fairness import PLAIN


def test_snapshot_of_an_engine_that_did_nothing_is_zero() -> None:
    found = dataclasses.asdict(Counters().snapshot(5.0, 0, 0, {}))
    assert {name for name, value in found.items() if value} == set()


def test_rates_are_of_the_last_seconds_and_totals_of_all() -> None:
    counters = Counters()
    for now, seconds, calls, rows in ((100, 9, 9, 9), (111, 1, 2, 4), (114, 3, 1, 2)):
        counters.step(now, seconds, calls, rows)
    for now, pictures in ((59, 7), (60, 1), (110, 2)):
        counters.succeed(now, pictures)
    found = counters.snapshot(120.0, 3, 2, {"denoiser/8": 4, "denoiser/32": 2})
    assert (found.forwards, found.rows, found.succeeded) == (3, 15, 10)
    assert (found.rows_per_forward, found.tick_s) == (3, 2)
    assert found.steps_per_s == 3 / 10  # from the begin of the first of two, 10 s ago
    assert found.pictures_per_s == 3 / 60
    assert (found.waiting, found.parked, found.row_cap) == (3, 2, 4)
    assert counters.snapshot(130.0, 0, 0, {}).steps_per_s == 0


def test_rates_hold_what_is_as_old_as_the_window() -> None:
    counters = Counters()
    for now in (100.0, 110.0):
        counters.step(now, 1.0, 1, 2)
    for now in (50.0, 110.0):
        counters.succeed(now, 3)
    found = counters.snapshot(110.0, 0, 0, {})
    assert found.steps_per_s == 2 / 11
    assert found.pictures_per_s == 6 / 60


def test_forward_of_no_time_has_a_rate() -> None:
    counters = Counters()
    counters.step(5.0, 0.0, 2, 2)
    assert counters.snapshot(5.0, 0, 0, {}).steps_per_s == pytest.approx(2e6)


def test_time_of_forwards_is_that_of_all_lanes() -> None:
    counters = Counters()
    for stage in ("start", "forward denoiser", "forward decoder", "forward denoiser"):
        counters.spend(stage, 1.5)
    found = counters.snapshot(0.0, 0, 0, {})
    assert found.stage_s == {"start": 1.5, "forward denoiser": 3.0, "forward decoder": 1.5}
    assert (found.forward_s, found.row_cap) == (4.5, 1)


def test_total_adds_what_engines_did_and_keeps_the_rates_of_one() -> None:
    def snapshot(number: int) -> EngineSnapshot:
        counters = Counters()
        for field in dataclasses.fields(counters):
            if field.type is int:
                setattr(counters, field.name, number)
        counters.spend("start", number)
        return dataclasses.replace(
            counters.snapshot(0.0, number, number, {"denoiser/8": number}),
            rows_per_forward=number, compiled_shapes=number, compiled_forwards=number,
        )  # fmt: skip

    found = dataclasses.asdict(total(snapshot(1), [snapshot(20), snapshot(300)]))
    own = {"rows_per_forward": 1, "row_caps": {"denoiser/8": 1}, "stage_s": {"start": 321}}
    rates = dict.fromkeys(("steps_per_s", "tick_s", "pictures_per_s"), 0)
    assert {name: value for name, value in found.items() if value != 321} == own | rates


@pytest.mark.parametrize(("done", "of", "share"), [(0, 0, 0), (0, 4, 0), (1, 4, 0.25), (5, 4, 1)])
def test_progress_is_a_share_of_the_steps(done: int, of: int, share: float) -> None:
    assert Progress(done, of).share == share


def test_times_of_steps_are_those_of_the_first_and_the_last() -> None:
    times = Times()
    assert (times.began, times.steps_began, times.steps_ended, times.ended) == (0, 0, 0, 0)
    for began, ended in ((1.0, 2.0), (3.0, 4.0)):
        times.step(began, ended)
    assert (times.steps_began, times.steps_ended) == (1, 4)


def test_request_asks_for_nothing_special_by_itself() -> None:
    first, second = Request(int), Request(int)
    assert (first.key, first.variant, first.stake, first.alone) == (None, None, PLAIN, None)
    assert (first.exclusive, first.measures, first.seq) == (False, False, -1)
    assert (Progress(), first.spent) == (Progress(0, 0), Spent(0.0, 0))
    assert first.future is not second.future
    assert Request(int, exclusive=True, seq=7).alone == 7


@pytest.mark.parametrize("outcome", [Outcome(1), Outcome(error=ValueError())])
def test_request_whose_client_has_gone_ends_uncounted(outcome: Outcome) -> None:
    request, counted = Request(int), list[Outcome]()
    request.future.cancel()
    request.end(outcome)
    request.hand_out(counted.append)
    assert request.future.cancelled()
    assert counted == []
