"""What the controller knows of a deployment, as an answer to: can it serve right now?"""

from ray.serve.schema import DeploymentStatus, DeploymentStatusOverview, ReplicaState

__all__ = ["is_ready"]


def is_ready(deployment: DeploymentStatusOverview | None) -> bool:
    """A replica runs, which means that its weights are loaded; or none should, until asked."""
    if deployment is None:
        return False
    if deployment.replica_states.get(ReplicaState.RUNNING, 0) > 0:
        return True
    return deployment.status == DeploymentStatus.HEALTHY and not deployment.replica_states
