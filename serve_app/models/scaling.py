"""How many replicas a deployment should have, computed from the work done and the work open.

Counting calls takes a job of 4 samples and 50 steps for one of 1 sample and 8. Here work is the
time that denoising steps take on one replica whose forwards are full. Pure functions.
"""

import math
from dataclasses import dataclass

from serve_app.types import GenerationSpec, Kind

__all__ = ["Demand", "ScalingRules", "desired_replicas", "row_steps", "work_s"]


@dataclass(frozen=True, slots=True)
class ScalingRules:
    """target_utilisation: share of the time that replicas should be at work.

    target_wait_s: seconds in which work that has piled up should be done.
    """

    target_utilisation: float
    target_wait_s: float


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked of a deployment.

    busy: replicas that were at work lately; one that was so half of the time is half of one.
    work_s: seconds of work at hand, inside the replicas and before them. num_jobs: likewise.
    """

    busy: float
    work_s: float
    num_jobs: float


def row_steps(spec: GenerationSpec, progress: float = 0.0) -> float:
    """Rows that a job still puts into denoiser forwards; guided steps have two each."""
    strength = 1.0 if spec.kind is Kind.TEXT2IMG else spec.strength
    rows = spec.samples * (2 if spec.guidance_scale > 1 else 1)
    return rows * math.ceil(spec.steps * strength) * (1.0 - progress)


def work_s(num_row_steps: float, step_s: float, row_cap: int) -> float:
    """Seconds of forwards of `row_cap` rows, `step_s` seconds each."""
    return num_row_steps * step_s / max(1, row_cap)


def desired_replicas(demand: Demand, rules: ScalingRules) -> int:
    """Return how many replicas there should be; the caller applies bounds and delays.

    Enough for the work that was done lately, and more where work piles up beyond the second that
    each busy replica has before it anyway. The work at hand alone would not do: where little waits
    because there are enough replicas, it would send them away.
    """
    backlog = max(0.0, demand.work_s - demand.busy) / rules.target_wait_s
    needed = demand.busy / rules.target_utilisation + min(backlog, demand.num_jobs)
    return max(1 if demand.num_jobs > 0 else 0, math.ceil(needed - 1e-9))
