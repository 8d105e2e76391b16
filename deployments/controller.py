"""`ask`: what Serve's controller knows of deployments, at little cost."""

from typing import TYPE_CHECKING

from ray import serve
from ray.serve.context import _get_global_client  # private, as what it is asked
from ray.serve.schema import (
    ApplicationStatusOverview,
    DeploymentStatus,
    DeploymentStatusOverview,
    ServeStatus,
)

if TYPE_CHECKING:  # the controller's own module: nothing that a replica needs
    from ray.serve._private.application_state import StatusOverview

__all__ = ["ask"]


def ask() -> ServeStatus:
    """Ask for the states of all applications; blocks.

    For `serve.status` the controller describes every deployment in full, and this process pickles
    the code of every router again: half the CPU of an idle janitor. While all are healthy, their
    states alone say enough, without the states of their replicas.
    """
    seen = _get_global_client().list_serve_statuses()
    deployments = (one for application in seen for one in application.deployment_statuses)
    if any(one.status != DeploymentStatus.HEALTHY for one in deployments):
        return serve.status()
    return ServeStatus(applications={one.name: _healthy(one) for one in seen})


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
