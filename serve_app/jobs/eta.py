"""When will a job be done? An estimate from measured run times. Pure arithmetic, no clock."""

from collections.abc import Callable

from serve_app.jobs.runtime import RunTime
from serve_app.types import GenerationSpec

__all__ = ["EtaModel", "Work", "plain_work"]

Work = Callable[[GenerationSpec], float]  # what a job costs, in any unit, larger than 0

_WEIGHT = 0.2  # of the newest run in a moving average: follows a change within about ten jobs


class EtaModel:
    """What the runs of each model take from claim to result, by their work.

    The measured time holds what neighbours in the batch cost, so only jobs that wait for a driver
    add to it. What `upscale` takes beside the painting is measured apart.

    Args:
        first_eta_s: told before a job of the model was measured.
        slots: jobs that are driven at a time.
        work: counts the units of a job.
    """

    def __init__(self, first_eta_s: float, slots: int, work: Work) -> None:
        self._first_eta_s = first_eta_s
        self._slots = slots
        self._work = work
        self._times: dict[str, RunTime] = {}
        self._enlarged_s: dict[str, float] = {}  # of a pixel that `upscale` adds
        self._run_s: float | None = None  # average of all runs

    def observe(self, spec: GenerationSpec, seconds: float) -> None:
        """Learn from a finished run."""
        self._run_s = _average(self._run_s, seconds)
        added, time, work = _added(spec), self._times.get(spec.model_id), self._work(spec)
        if time is None:
            self._times[spec.model_id] = RunTime(work, seconds)
        elif added == 0:
            time.observe(work, seconds)
        else:
            rest_s = max(0.0, seconds - time.of(work)) / added
            known_s = self._enlarged_s.get(spec.model_id)
            self._enlarged_s[spec.model_id] = _average(known_s, rest_s)

    def estimate_s(self, spec: GenerationSpec, num_ahead: int, progress: float = 0.0) -> float:
        """Seconds until the job is done.

        Args:
            spec: what is to run.
            num_ahead: jobs at work, and those that are begun before this one.
            progress: share already done, 0 to 1.
        """
        time = self._times.get(spec.model_id)
        run_s = self._first_eta_s
        if time is not None:
            enlarged_s = self._enlarged_s.get(spec.model_id, 0.0)
            run_s = time.of(self._work(spec)) + enlarged_s * _added(spec)
        return run_s * (1.0 - progress) + self._wait_s(num_ahead)

    def wait_s(self, num_open: int) -> float:
        """Seconds that a job accepted now waits until it is begun, by the average run."""
        return self._wait_s(num_open)

    def next_end_s(self, num_mine: int, num_open: int) -> float:
        """Seconds until one of `num_mine` jobs ends, spread evenly among `num_open` open ones."""
        return self._average_s * num_open / (min(num_open, self._slots) * num_mine)

    @property
    def _average_s(self) -> float:
        return self._first_eta_s if self._run_s is None else self._run_s

    def _wait_s(self, num_ahead: int) -> float:
        return self._average_s * max(0, num_ahead - self._slots + 1) / self._slots


def plain_work(spec: GenerationSpec) -> float:
    """Count steps x megapixels of all samples, as if nothing but these decided."""
    return spec.samples * spec.steps * spec.height * spec.width / 1e6


def _added(spec: GenerationSpec) -> float:
    """Pixels that `upscale` adds to what was painted."""
    return spec.samples * (spec.upscale**2 - 1) * spec.height * spec.width


def _average(known: float | None, newest: float) -> float:
    return newest if known is None else known + _WEIGHT * (newest - known)
