"""When will a job be done? An estimate from measured run times. Pure arithmetic, no clock."""

from collections.abc import Callable

from serve_app.types import GenerationSpec

__all__ = ["EtaModel", "Work", "plain_work"]

Work = Callable[[GenerationSpec], float]  # what a job costs, in any unit, larger than 0

_WEIGHT = 0.2  # of the newest run in the moving average: follows a change within about ten jobs


class EtaModel:
    """Moving average, per model, of the seconds that a unit of work takes from claim to result.

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
        self._unit_s: dict[str, float] = {}
        self._enlarged_s: dict[str, float] = {}  # of a megapixel that `upscale` adds
        self._run_s = first_eta_s

    def observe(self, spec: GenerationSpec, seconds: float) -> None:
        """Learn from a finished run."""
        self._run_s += _WEIGHT * (seconds - self._run_s)
        added, unit_s = _added(spec), self._unit_s.get(spec.model_id)
        if added == 0 or unit_s is None:
            _average(self._unit_s, spec.model_id, seconds / self._work(spec))
        else:
            rest_s = max(0.0, seconds - unit_s * self._work(spec))
            _average(self._enlarged_s, spec.model_id, rest_s / added)

    def estimate_s(self, spec: GenerationSpec, num_ahead: int, progress: float = 0.0) -> float:
        """Seconds until the job is done.

        Args:
            spec: what is to run.
            num_ahead: open jobs, this one left out.
            progress: share already done, 0 to 1.
        """
        unit_s = self._unit_s.get(spec.model_id)
        run_s = self._first_eta_s
        if unit_s is not None:
            enlarged_s = self._enlarged_s.get(spec.model_id, 0.0)
            run_s = unit_s * self._work(spec) + enlarged_s * _added(spec)
        return run_s * (1.0 - progress) + run_s * self._waves(num_ahead)

    def wait_s(self, num_open: int) -> float:
        """Seconds that a job accepted now waits until it is begun, by the average run."""
        return self._run_s * self._waves(num_open)

    def _waves(self, num_ahead: int) -> float:
        return max(0, num_ahead - self._slots + 1) / self._slots


def plain_work(spec: GenerationSpec) -> float:
    """Count steps x megapixels of all samples, as if nothing but these decided."""
    return spec.samples * spec.steps * spec.height * spec.width / 1e6


def _added(spec: GenerationSpec) -> float:
    """Megapixels that `upscale` adds to what was painted."""
    return spec.samples * (spec.upscale**2 - 1) * spec.height * spec.width / 1e6


def _average(averages: dict[str, float], model_id: str, newest: float) -> None:
    known = averages.get(model_id, newest)
    averages[model_id] = known + _WEIGHT * (newest - known)
