"""`RowCapProfiler`: measures the row caps of the sizes that come by. Only for the engine thread.

A size is measured while the painter starts, or when it was met in service and the engine has
nothing else to do: forwards of up to `max_rows` rows would hold live requests up for seconds.
Until then the cap of the nearest size is scaled.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter, thread_time

import structlog
import torch

from serve_app.engine.lane import Call, forward
from serve_app.engine.row_cap_store import RowCapStore
from serve_app.engine.row_caps import RowCaps, Size, profile

__all__ = ["RowCapProfiler"]

_log = structlog.get_logger()
_MAX_SPECIMENS = 16  # kept at a time; each holds the tensors of one call
_TIMING_S = 0.5  # spent on one row count


class _Interrupted(Exception):
    """There is work to do."""


@dataclass(frozen=True, slots=True)
class _Specimen:
    """A call to be timed, and the seconds found so far by row count."""

    call: Call
    seconds: dict[int, float] = field(default_factory=dict)

    def time(self, may_go_on: Callable[[], bool], rows: int) -> float:
        if rows not in self.seconds:
            if not may_go_on():
                raise _Interrupted
            self.seconds[rows] = seconds_of_forward(self.call, rows)
        return self.seconds[rows]


class RowCapProfiler:
    """Owns the row caps.

    Args:
        max_rows: largest row count that is tried.
        growth: factor of time that doubling the rows may cost.
        file: where caps are kept between runs; none: nowhere.
    """

    def __init__(self, max_rows: int, growth: float, file: RowCapStore | None = None) -> None:
        self.caps = RowCaps(max_rows, file.read() if file else {})
        self._growth = growth
        self._file = file
        self._specimens: dict[Size, _Specimen] = {}

    def see(self, call: Call) -> None:
        """Keep a call whose size has no cap yet, to measure it when there is time."""
        size = (call.lane.name, call.size)
        is_known = self.caps.has(*size) or size in self._specimens
        if not is_known and len(self._specimens) < _MAX_SPECIMENS:
            # What is added to rows may be gone by then, and the cap is for all rows of a size.
            self._specimens[size] = _Specimen(call.unmarked())

    def measure(self, may_go_on: Callable[[], bool]) -> None:
        """Measure the sizes seen, asking before each row count; what was timed so far is kept."""
        while self._specimens and may_go_on():
            size, specimen = next(iter(self._specimens.items()))
            try:
                time_forward = partial(specimen.time, may_go_on)
                cap = profile(time_forward, self.caps.max_rows, self._growth)
            except _Interrupted:
                return
            except torch.AcceleratorError:
                raise  # the device is lost
            except Exception:  # a request with this call fails by itself, and says why
                _log.exception("row_cap_not_measured", lane=size[0], size=size[1])
            else:
                self._learn(size, cap)
            del self._specimens[size]

    def _learn(self, size: Size, cap: int) -> None:
        self.caps.learn(*size, cap)
        _log.info("row_cap", lane=size[0], size=size[1], rows=cap)
        if self._file:
            self._file.add(self.caps.measured)


def seconds_of_forward(call: Call, rows: int) -> float:
    """Time one forward with copies of a call, `rows` rows in all: the least of several times.

    A busy machine must not leave a low cap behind, which would be kept. So without a GPU the time
    is that of this thread at work: by the wall clock a load of 20 has shown 2 rows for 16.

    Raises:
        MemoryError: the device has no memory for so many rows.
    """
    has_gpu = torch.cuda.is_available()
    clock = perf_counter if has_gpu else thread_time
    copies = [call] * max(1, rows // call.rows)
    times: list[float] = []
    try:
        while len(times) < 2 or (len(times) < 10 and sum(times) < _TIMING_S):
            began = clock()
            forward(copies, rows)
            if has_gpu:
                torch.cuda.synchronize()
            times.append(clock() - began)
            if times[0] > _TIMING_S:
                break  # so slow that warming up does not show
    except torch.OutOfMemoryError as exc:
        raise MemoryError(f"{rows} rows") from exc
    return min(times)
