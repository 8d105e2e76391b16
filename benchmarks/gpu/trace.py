"""`Idle`: how long a device had nothing to do, read off a trace of torch's profiler."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["TICK", "Idle", "idle"]

TICK = "denoiser forward"  # name of the range around each
_ON_DEVICE = {"kernel", "gpu_memcpy", "gpu_memset"}
_Span = tuple[float, float]  # begin and end, microseconds


@dataclass(frozen=True, slots=True)
class Idle:
    """Of a run; times in microseconds, means per tick.

    ticks: forwards of the denoiser. operations: on the device. inside: idle between operations of
    a forward, where the device waits for launches. between: idle from the end of a forward to the
    beginning of the next. longest: one gap.
    """

    ticks: int
    operations: float
    busy: float
    inside: float
    between: float
    longest: float

    @property
    def busy_share(self) -> float:
        """Share of the time that the device was at work."""
        return self.busy / (self.busy + self.inside + self.between)


def idle(events: Iterable[Mapping[str, object]]) -> Idle:
    """Read the events of a trace, in Chrome's format, from its first tick to its last's end.

    Where none ran on a GPU, the operations of the CPU stand for those of the device.

    Raises:
        ValueError: a trace without ticks.
    """
    complete = [event for event in events if event.get("ph") == "X"]
    has_gpu = any(event.get("cat") in _ON_DEVICE for event in complete)
    at_work = _ON_DEVICE if has_gpu else {"cpu_op"}
    named = [event for event in complete if event.get("name") == TICK]
    ranges = ("gpu_user_annotation", "user_annotation") if has_gpu else ("user_annotation",)
    by_range = (sorted(_span(one) for one in named if one.get("cat") == name) for name in ranges)
    ticks = next((found for found in by_range if found), [])
    if not ticks:
        raise ValueError("no forward of the denoiser in the trace")
    begin, end = ticks[0][0], ticks[-1][1]
    spans = sorted(_span(event) for event in complete if event.get("cat") in at_work)
    spans = [span for span in spans if span[0] >= begin and span[1] <= end]
    gaps = _gaps(spans, begin, end)
    inside = sum(_overlap(gap, tick) for gap, tick in _meeting(gaps, ticks))
    total = sum(stop - start for start, stop in gaps)
    number = len(ticks)
    return Idle(
        ticks=number,
        operations=len(spans) / number,
        busy=(end - begin - total) / number,
        inside=inside / number,
        between=(total - inside) / number,
        longest=max((stop - start for start, stop in gaps), default=0.0),
    )


def _span(event: Mapping[str, object]) -> _Span:
    start, duration = event["ts"], event["dur"]
    assert isinstance(start, int | float), "complete events have a beginning"
    assert isinstance(duration, int | float), "complete events have a duration"
    return float(start), float(start + duration)


def _gaps(spans: Sequence[_Span], begin: float, end: float) -> list[_Span]:
    """Return the times that no span covers; spans by their beginning, which may overlap."""
    gaps, reached = [], begin
    for start, stop in spans:
        if start > reached:
            gaps.append((reached, start))
        reached = max(reached, stop)
    if end > reached:
        gaps.append((reached, end))
    return gaps


def _meeting(gaps: Sequence[_Span], ticks: Sequence[_Span]) -> Iterable[tuple[_Span, _Span]]:
    """Pair gaps with the ticks that they overlap; both by their beginning."""
    at = 0
    for gap in gaps:
        while at < len(ticks) and ticks[at][1] <= gap[0]:
            at += 1
        following = at
        while following < len(ticks) and ticks[following][0] < gap[1]:
            yield gap, ticks[following]
            following += 1


def _overlap(one: _Span, other: _Span) -> float:
    return max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
