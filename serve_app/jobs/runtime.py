"""`RunTime`: seconds of a run, a constant and a part that grows with its work, learned as runs end.

Source: the Kalman filter of two states that drift (recursive least squares), with errors told as
shares of the measured time, so that small and large jobs count alike.
"""

import math

__all__ = ["RunTime"]

_NOISE = 0.2  # share by which single runs differ: neighbours, pauses
_DRIFT = 0.07  # share by which both parts may change together from run to run
_SHIFT = 0.02  # and each alone
_MAX_SURPRISE = 3.0  # deviations; a run that was stranger teaches no more than one that was so


class RunTime:
    """What runs of one kind take.

    A single run cannot tell its two parts apart, so each gets half. The next one of another size
    does; runs of one size leave the proportion as it is.

    Args:
        work: of the first run, in any unit, larger than 0.
        seconds: that it took.
    """

    def __init__(self, work: float, seconds: float) -> None:
        half_s = _positive(seconds) / 2
        self._fixed_s, self._unit_s = half_s, half_s / work
        # Variances of both parts, and what they have in common.
        self._fixed_var, self._unit_var, self._common = self._fixed_s**2, self._unit_s**2, 0.0
        self.observe(work, seconds)

    def of(self, work: float) -> float:
        """Seconds that a run of so much work takes."""
        return self._fixed_s + self._unit_s * work

    def observe(self, work: float, seconds: float) -> None:
        """Learn from a finished run."""
        self._fixed_var += (_DRIFT**2 + _SHIFT**2) * self._fixed_s**2
        self._unit_var += (_DRIFT**2 + _SHIFT**2) * self._unit_s**2
        self._common += _DRIFT**2 * self._fixed_s * self._unit_s
        fixed, unit = 1 / _positive(seconds), work / _positive(seconds)
        with_fixed = self._fixed_var * fixed + self._common * unit
        with_unit = self._common * fixed + self._unit_var * unit
        variance = fixed * with_fixed + unit * with_unit + _NOISE**2
        most = _MAX_SURPRISE * math.sqrt(variance)
        error = min(most, max(-most, 1 - fixed * self._fixed_s - unit * self._unit_s))
        self._fixed_s += with_fixed * error / variance
        self._unit_s += with_unit * error / variance
        self._fixed_var -= with_fixed**2 / variance
        self._unit_var -= with_unit**2 / variance
        self._common -= with_fixed * with_unit / variance
        self._keep_positive()

    def _keep_positive(self) -> None:
        """Settle what a part lacks to 0 with the other one, as far as they vary together."""
        if self._fixed_s < 0:
            self._unit_s -= self._common / self._fixed_var * self._fixed_s
        elif self._unit_s < 0:
            self._fixed_s -= self._common / self._unit_var * self._unit_s
        self._fixed_s, self._unit_s = max(0.0, self._fixed_s), max(0.0, self._unit_s)


def _positive(seconds: float) -> float:
    return max(seconds, 1e-3)
