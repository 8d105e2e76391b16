"""`WorkPolicy`: Serve's autoscaling by the work, where the options of a deployment ask for it.

Runs in Serve's controller, so the head node needs this package. Bounds and delays are Serve's.
"""

from ray.serve.config import AutoscalingContext, AutoscalingPolicy

from serve_app.config import DeploymentOptions
from serve_app.models.scaling import Demand, ScalingRules, desired_replicas

__all__ = ["WorkPolicy", "work_policy"]


def work_policy(options: DeploymentOptions) -> AutoscalingPolicy:
    """Return the policy that makes Serve scale by this class."""
    return AutoscalingPolicy(
        policy_function=WorkPolicy,
        policy_kwargs={
            "target_utilisation": options.target_utilisation,
            "target_wait_s": options.target_wait_s,
        },
    )


class WorkPolicy:
    """Adds what replicas tell in `record_autoscaling_stats` and what waits at their callers."""

    def __init__(self, target_utilisation: float, target_wait_s: float) -> None:
        self._rules = ScalingRules(target_utilisation, target_wait_s)

    def __call__(self, ctx: AutoscalingContext) -> tuple[int, dict[str, object]]:
        """Return how many replicas there should be; there is no state to keep."""
        job_s = _latest(ctx, "job_s")
        queued_s = float(ctx.total_queued_requests or 0) * sum(job_s) / max(1, len(job_s))
        demand = Demand(
            busy=sum(_latest(ctx, "busy")),
            work_s=sum(_latest(ctx, "work_s")) + queued_s,
            num_jobs=float(ctx.total_num_requests),
        )
        return desired_replicas(demand, self._rules), {}


def _latest(ctx: AutoscalingContext, name: str) -> list[float]:
    """What each replica told last."""
    series = (ctx.raw_metrics or {}).get(name, {})
    return [float(values[-1].value) for values in series.values() if values]
