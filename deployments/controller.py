"""`ask`: what Serve's controller knows of deployments, at little cost."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

from ray.serve.context import _get_global_client  # private, as what it is asked
from ray.serve.schema import (
    ApplicationStatus,
    ApplicationStatusOverview,
    DeploymentStatus,
    DeploymentStatusOverview,
    DeploymentStatusTrigger,
    ReplicaState,
    ServeStatus,
)

if TYPE_CHECKING:  # the controller's own module: nothing that a replica needs
    from ray.serve._private.application_state import StatusOverview

__all__ = ["ask"]


class _Replica(TypedDict):
    state: ReplicaState


class _Deployment(TypedDict):
    status: DeploymentStatus
    status_trigger: DeploymentStatusTrigger
    message: str
    replicas: Sequence[_Replica]


class _Application(TypedDict):
    """What is read of the controller's description of one, of which this is a small part."""

    status: ApplicationStatus
    message: str
    last_deployed_time_s: float
    deployments: dict[str, _Deployment]


def ask() -> ServeStatus:
    """Ask for the states of all applications; blocks.

    `serve.status` has the controller describe every deployment in full, and then this process
    checks all of that and pickles the code of every router again: half the CPU of an idle janitor,
    and of an ingress that is asked whether the models are ready yet. While all are healthy, their
    states alone say enough; else what matters is taken from the description as it comes.
    """
    client = _get_global_client()
    seen = client.list_serve_statuses()
    deployments = (one for application in seen for one in application.deployment_statuses)
    if any(one.status != DeploymentStatus.HEALTHY for one in deployments):
        found: dict[str, _Application] = client.get_serve_details()["applications"]
        return ServeStatus(applications={name: _described(one) for name, one in found.items()})
    return ServeStatus(applications={one.name: _healthy(one) for one in seen})


def _described(told: _Application) -> ApplicationStatusOverview:
    deployments = {
        name: DeploymentStatusOverview(
            one["status"],
            one["status_trigger"],
            dict(Counter(replica["state"] for replica in one["replicas"])),
            one["message"],
        )
        for name, one in told["deployments"].items()
    }
    return ApplicationStatusOverview(
        told["status"], told["message"], told["last_deployed_time_s"], deployments
    )


def _healthy(seen: "StatusOverview") -> ApplicationStatusOverview:
    told, deployments = seen.app_status, seen.deployment_statuses
    return ApplicationStatusOverview(
        told.status,
        told.message,
        told.deployment_timestamp,
        {
            one.name: DeploymentStatusOverview(one.status, one.status_trigger, {}, one.message)
            for one in deployments
        },
    )
