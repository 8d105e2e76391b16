"""When will a job be done? An estimate from measured run times. Pure arithmetic, no clock."""

from serve_app.types import GenerationSpec

__all__ = ["EtaModel"]

_WEIGHT = 0.2  # of the newest run in the moving average: follows a change within about ten jobs


class EtaModel:
    """Moving average, per model, of the seconds that a unit of work takes from claim to result.

    A unit of work is one denoising step of one megapixel of one sample. The measured time holds
    what neighbours in the batch cost, so only jobs that wait for a driver add to it.
    """

    def __init__(self, first_eta_s: float, slots: int) -> None:
        self._first_eta_s = first_eta_s
        self._slots = slots
        self._unit_s: dict[str, float] = {}
        self._run_s = first_eta_s

    def observe(self, spec: GenerationSpec, seconds: float) -> None:
        """Learn from a finished run."""
        unit_s = seconds / _work(spec)
        known = self._unit_s.get(spec.model_id, unit_s)
        self._unit_s[spec.model_id] = known + _WEIGHT * (unit_s - known)
        self._run_s += _WEIGHT * (seconds - self._run_s)

    def estimate_s(self, spec: GenerationSpec, num_ahead: int, progress: float = 0.0) -> float:
        """Seconds until the job is done.

        Args:
            spec: what is to run.
            num_ahead: open jobs, this one left out.
            progress: share already done, 0 to 1.
        """
        unit_s = self._unit_s.get(spec.model_id)
        run_s = self._first_eta_s if unit_s is None else unit_s * _work(spec)
        return run_s * (1.0 - progress) + run_s * self._waves(num_ahead)

    def wait_s(self, num_open: int) -> float:
        """Seconds that a job accepted now waits until it is begun, by the average run."""
        return self._run_s * self._waves(num_open)

    def _waves(self, num_ahead: int) -> float:
        return max(0, num_ahead - self._slots + 1) / self._slots


def _work(spec: GenerationSpec) -> float:
    return spec.samples * spec.steps * spec.height * spec.width / 1e6
