"""Row caps are measured when nobody waits, and known again after a restart."""

import errno
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from serve_app.engine import row_cap_profiler
from serve_app.engine.engine import Engine
from serve_app.engine.lane import Call, Lane
from serve_app.engine.request import Request
from serve_app.engine.row_cap_profiler import RowCapProfiler
from serve_app.engine.row_cap_store import RowCapStore
from tests.engine.toys import Body

Timings = list[tuple[int, int]]  # size of the sample, rows


@pytest.fixture
def timings(monkeypatch: pytest.MonkeyPatch) -> Timings:
    """Forwards take as long as four rows do, whatever is less; writes down what was timed."""
    made: Timings = []

    def seconds(call: Call, rows: int) -> float:
        made.append((call.size, rows))
        return max(4.0, rows)

    monkeypatch.setattr(row_cap_profiler, "seconds_of_forward", seconds)
    return made


def wait_for_caps(engine: Engine, count: int) -> dict[str, int]:
    deadline = time.monotonic() + 30
    while len(engine.snapshot().row_caps) < count and time.monotonic() < deadline:
        time.sleep(0.001)
    return engine.snapshot().row_caps


def call_of(lane: Lane, rows: int = 2, size: int = 8) -> Call:
    return Call(lane, {"sample": torch.zeros(rows, size)}, rows, size)


def test_engine_measuring_request_sets_the_cap_before_it_ends(
    lane: Lane, make_engine: Callable[..., Engine], timings: Timings
) -> None:
    engine = make_engine(max_rows=32, measure_rows=True)
    engine.submit(Request(Body(lane), measures=True)).result(30)
    assert engine.snapshot().row_caps == {"denoiser/8": 4}
    assert timings == [(8, 2), (8, 4), (8, 8)]


@pytest.mark.parametrize(("measures", "timed_before"), [(True, 3), (False, 0)])
def test_engine_measures_between_steps_for_requests_that_ask_for_it_alone(
    measures: bool,
    timed_before: int,
    make_engine: Callable[..., Engine],
    timings: Timings,
) -> None:
    seen: list[int] = []

    def run(arguments: dict[str, object]) -> object:
        seen.append(len(timings))
        return (arguments["sample"],)

    engine = make_engine(max_rows=32, measure_rows=True)
    body = Body(Lane("denoiser", run), steps=3)
    engine.submit(Request(body, measures=measures)).result(30)
    assert seen == [timed_before] * 3


def test_engine_size_met_in_service_is_measured_when_idle(
    lane: Lane, make_engine: Callable[..., Engine], timings: Timings
) -> None:
    engine = make_engine(max_rows=32, measure_rows=True)
    engine.submit(Request(Body(lane))).result(30)
    assert wait_for_caps(engine, 1) == {"denoiser/8": 4}
    engine.submit(Request(Body(lane))).result(30)
    engine.close()
    assert timings == [(8, 2), (8, 4), (8, 8)], "once"


def test_meter_newcomer_interrupts_between_row_counts_and_nothing_is_lost(
    lane: Lane, timings: Timings
) -> None:
    measured = RowCapProfiler(32, growth=1.5)
    measured.see(call_of(lane))
    for _ in range(3):
        turns = iter([True, True, False])
        measured.measure(lambda turns=turns: next(turns, False))  # type: ignore[misc]
    assert timings == [(8, 2), (8, 4), (8, 8)]
    assert measured.caps.measured == {("denoiser", 8): 4}


def test_engine_restarted_knows_the_caps_and_does_not_measure(
    lane: Lane, make_engine: Callable[..., Engine], timings: Timings, tmp_path: Path
) -> None:
    file = RowCapStore(tmp_path / "caps", {"device": "toy"})
    first = make_engine(row_cap_store=file, measure_rows=True)
    first.submit(Request(Body(lane), measures=True)).result(30)
    first.close()
    timings.clear()
    again = make_engine(
        row_cap_store=RowCapStore(tmp_path / "caps", {"device": "toy"}), measure_rows=True
    )
    assert again.snapshot().row_caps == {"denoiser/8": 4}
    again.submit(Request(Body(lane), measures=True)).result(30)
    other = make_engine(row_cap_store=RowCapStore(tmp_path / "caps", {"device": "other"}))
    assert (timings, other.snapshot().row_caps) == ([], {})


def test_engine_call_that_cannot_be_timed_fails_its_request_alone(
    lane: Lane, make_engine: Callable[..., Engine]
) -> None:
    engine = make_engine(measure_rows=True)
    poisoned = Body(lane)
    poisoned.start = torch.full((2, 8), 5000.0)
    with pytest.raises(ValueError, match="a bad row"):
        engine.submit(Request(poisoned, measures=True)).result(30)
    engine.check_health()
    engine.submit(Request(Body(lane))).result(30)


class Timed:
    """A forward that takes so many seconds each time, by a clock of its own."""

    def __init__(self, *seconds: float, fits: int = 99) -> None:
        self.now, self.rows, self._seconds, self._fits = 0.0, list[int](), seconds, fits

    def __call__(self, arguments: dict[str, object]) -> object:
        sample = arguments["sample"]
        assert isinstance(sample, torch.Tensor)
        if len(sample) > self._fits:
            raise torch.OutOfMemoryError("no memory")
        self.now += self._seconds[min(len(self.rows), len(self._seconds) - 1)]
        self.rows.append(len(sample))
        return (sample,)


@pytest.mark.parametrize(
    ("seconds", "times", "least"),
    [
        pytest.param([0.25, 0.25], 2, 0.25, id="twice-at-least"),
        pytest.param([0.125, 0.0625], 7, 0.0625, id="half-a-second"),
        pytest.param([0.03125], 10, 0.03125, id="ten-times-at-most"),
        pytest.param([0.5, 0.25], 2, 0.25, id="slow"),
        pytest.param([0.75, 0.25], 1, 0.75, id="slower"),
    ],
)
def test_time_of_a_forward_is_the_least_of_several(
    seconds: list[float], times: int, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Timed(*seconds)
    monkeypatch.setattr(row_cap_profiler, "thread_time", lambda: run.now)
    call = call_of(Lane("denoiser", run))
    assert row_cap_profiler.seconds_of_forward(call, 6) == least
    assert run.rows == [6] * times


def test_time_of_fewer_rows_than_a_call_has_is_that_of_its_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = Timed(0.25)
    monkeypatch.setattr(row_cap_profiler, "thread_time", lambda: run.now)
    assert row_cap_profiler.seconds_of_forward(call_of(Lane("denoiser", run)), 1) == 0.5
    assert set(run.rows) == {1}


def test_time_on_a_device_is_that_until_it_has_done_its_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = Timed(0.125)

    def synchronize() -> None:
        run.now += 1.0

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr(row_cap_profiler, "perf_counter", lambda: run.now)
    call = call_of(Lane("denoiser", run))
    assert row_cap_profiler.seconds_of_forward(call, 2) == 1.125


def test_memory_that_ends_is_told_with_the_rows() -> None:
    call = call_of(Lane("denoiser", Timed(1.0, fits=3)))
    with pytest.raises(MemoryError, match="4 rows"):
        row_cap_profiler.seconds_of_forward(call, 4)


def test_meter_keeps_so_many_sizes_at_a_time_and_each_once(lane: Lane, timings: Timings) -> None:
    measured = RowCapProfiler(4, growth=1.5)
    for size in [*range(1, 18), 1]:
        measured.see(call_of(lane, size=size))
    measured.measure(lambda: True)
    assert [size for size, rows in timings if rows == 2] == list(range(1, 17))
    measured.see(call_of(lane, size=1))  # known by now
    measured.see(call_of(lane, size=17))
    timings.clear()
    measured.measure(lambda: True)
    assert timings == [(17, 2), (17, 4)]


def test_meter_goes_on_after_a_call_that_cannot_be_timed_and_ends_with_its_device(
    lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: dict[int, Exception] = {8: ValueError("a bad row")}

    def seconds(call: Call, rows: int) -> float:
        if call.size in failures:
            raise failures[call.size]
        return 1.0

    monkeypatch.setattr(row_cap_profiler, "seconds_of_forward", seconds)
    measured = RowCapProfiler(4, growth=1.5)
    for size in (8, 9):
        measured.see(call_of(lane, size=size))
    measured.measure(lambda: True)
    assert measured.caps.measured == {("denoiser", 9): 4}
    failures[10] = torch.AcceleratorError("the device is lost")
    measured.see(call_of(lane, size=10))
    with pytest.raises(torch.AcceleratorError):
        measured.measure(lambda: True)


def test_engine_measures_no_urgent_lane(
    lane: Lane, make_engine: Callable[..., Engine], timings: Timings
) -> None:
    engine = make_engine(max_rows=32, measure_rows=True)
    urgent = Lane("decoder", lane.run, urgent=True)
    engine.submit(Request(Body(urgent), measures=True)).result(30)
    engine.submit(Request(Body(lane), measures=True)).result(30)
    assert engine.snapshot().row_caps == {"denoiser/8": 4}


def test_engine_close_ends_a_measurement(
    lane: Lane, make_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(max_rows=64, measure_rows=True)
    began, timed = threading.Event(), []

    def seconds(call: Call, rows: int) -> float:
        timed.append(rows)
        began.set()
        while engine._close_at is None:
            time.sleep(0.001)
        return 1.0

    monkeypatch.setattr(row_cap_profiler, "seconds_of_forward", seconds)
    engine.submit(Request(Body(lane))).result(30)
    assert began.wait(30)
    engine.close()
    assert timed == [2]


def test_cap_file_makes_the_folders_that_it_lies_in(tmp_path: Path) -> None:
    file = RowCapStore(tmp_path / "a" / "b", {"a": 1})
    file.add({("denoiser", 64): 4})
    assert file.read() == {("denoiser", 64): 4}


def test_cap_file_is_found_whatever_the_order_and_says_what_it_holds_for(tmp_path: Path) -> None:
    RowCapStore(tmp_path, {"a": 1, "b": Path("/x")}).add({("denoiser", 64): 4})
    again = RowCapStore(tmp_path, {"b": Path("/x"), "a": 1})
    assert again.read() == {("denoiser", 64): 4}
    assert RowCapStore(tmp_path, {"b": Path("/y"), "a": 1}).read() == {}
    (file,) = tmp_path.iterdir()
    assert len(file.stem) == 32
    assert json.loads(file.read_text()) == {
        "holds_for": {"a": 1, "b": "/x"},
        "caps": [["denoiser", 64, 4]],
    }


def test_cap_file_keeps_what_others_wrote(tmp_path: Path) -> None:
    one, two = RowCapStore(tmp_path, {"a": 1}), RowCapStore(tmp_path, {"a": 1})
    one.add({("denoiser", 64): 4})
    two.add({("denoiser", 128): 2})
    assert one.read() == {("denoiser", 64): 4, ("denoiser", 128): 2}
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("damage", ["", "[]", '{"caps": [["denoiser", 64]]}', '{"caps": 5}'])
def test_cap_file_damaged_counts_as_empty_and_is_mended(tmp_path: Path, damage: str) -> None:
    file = RowCapStore(tmp_path, {"a": 1})
    file.add({("denoiser", 64): 4})
    next(tmp_path.iterdir()).write_text(damage)
    assert file.read() == {}
    file.add({("denoiser", 64): 8})
    assert file.read() == {("denoiser", 64): 8}


def test_cap_file_without_a_writable_folder_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    file = RowCapStore(tmp_path / "file" / "caps", {})
    file.add({("denoiser", 64): 4})
    assert file.read() == {}


def test_cap_file_on_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    file = RowCapStore(tmp_path, {})
    with monkeypatch.context() as full:
        full.setattr("os.replace", fail)
        file.add({("denoiser", 64): 4})
    assert list(tmp_path.iterdir()) == []


def test_halved_cap_is_not_kept() -> None:
    caps = RowCapProfiler(16, growth=1.5).caps
    caps.learn("denoiser", 64, 8)
    caps.halve("denoiser", 64, 8)
    assert caps.limit("denoiser", 64) == 4
    assert caps.measured == {("denoiser", 64): 8}
