"""`Workload`: the jobs inside one replica, as seconds of work, reported to the scaling policy."""

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from serve_app.models.scaling import row_steps, work_s
from serve_app.types import GenerationSpec

__all__ = ["Pace", "Workload"]

_WEIGHT = 0.1  # of the newest job in the moving average
_WINDOW_S = 60.0  # over which a replica was busy or not


@dataclass(frozen=True, slots=True)
class Pace:
    """How a model paints.

    step_s: seconds of a forward, lately; 0 when idle. row_cap: rows that it may have.
    forward_s: seconds of all forwards since the start.
    """

    step_s: float
    row_cap: int
    forward_s: float


class Workload:
    """Jobs come and go; paces are measured elsewhere. Of one model."""

    def __init__(self) -> None:
        self._jobs: dict[int, GenerationSpec] = {}
        self._step_s, self._row_cap = 0.0, 1
        self._job_s = 0.0
        self._past: deque[tuple[float, float]] = deque()  # time, and forward_s then

    @contextmanager
    def job(self, job_id: int, spec: GenerationSpec) -> Iterator[None]:
        """Count a job for the time of the block."""
        self._jobs[job_id] = spec
        cost_s = self._cost_s(spec, 0.0)
        self._job_s += (_WEIGHT if self._job_s else 1.0) * (cost_s - self._job_s)
        try:
            yield
        finally:
            self._jobs.pop(job_id, None)

    def stats(self, progress: Mapping[int, float], pace: Pace, now: float) -> dict[str, float]:
        """Return the work inside and per job on average, seconds, and the share of time at work.

        progress: share of steps done by job. now: seconds of any clock that only goes forward.
        """
        self._row_cap = pace.row_cap
        self._step_s = pace.step_s or self._step_s
        inside_s = sum(
            self._cost_s(spec, progress.get(job_id, 0.0)) for job_id, spec in self._jobs.items()
        )
        return {"work_s": inside_s, "job_s": self._job_s, "busy": self._busy(pace.forward_s, now)}

    def _cost_s(self, spec: GenerationSpec, progress: float) -> float:
        return work_s(row_steps(spec, progress), self._step_s, self._row_cap)

    def _busy(self, forward_s: float, now: float) -> float:
        self._past.append((now, forward_s))
        while self._past[0][0] < now - _WINDOW_S:
            self._past.popleft()
        then, forward_then_s = self._past[0]
        return min(1.0, max(0.0, forward_s - forward_then_s) / (now - then)) if now > then else 0.0
