"""What the controller knows of deployments, as an answer to: can they serve right now?"""

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ray import serve
from ray.serve.context import _get_global_client  # private, as what it is asked
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import (
    ApplicationStatus,
    ApplicationStatusOverview,
    DeploymentStatus,
    DeploymentStatusOverview,
    ReplicaState,
    ServeStatus,
)

from serve_app.models.application import application_name, deployment_name

if TYPE_CHECKING:  # the controller's own module: nothing that a replica needs
    from ray.serve._private.application_state import StatusOverview

__all__ = ["ModelApplication", "ask_controller", "deployments_here", "handle_of", "is_ready"]


def ask_controller() -> ServeStatus:
    """Ask for what `is_ready` needs; blocks.

    For `serve.status` the controller describes every deployment in full, and this process pickles
    the code of every router again: half the CPU of an idle janitor. While all are healthy, their
    states alone say enough.
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


def is_ready(deployment: DeploymentStatusOverview | None) -> bool:
    """A replica runs, which means that its weights are loaded; or none should, until asked."""
    if deployment is None:
        return False
    if deployment.replica_states.get(ReplicaState.RUNNING, 0) > 0:
        return True
    return deployment.status == DeploymentStatus.HEALTHY and not deployment.replica_states


@dataclass(slots=True)
class ModelApplication:
    """One that exists.

    is_ready: it can answer now. is_expected: it will, unless something is wrong with it.
    calls: at work, or waiting for a replica.
    """

    handle: DeploymentHandle
    is_ready: bool = False
    is_expected: bool = False
    calls: set[asyncio.Timeout] = field(default_factory=set)

    def learn(self, seen: ApplicationStatusOverview) -> None:
        """Take up what the controller says."""
        is_leaving = seen.status == ApplicationStatus.DELETING
        self.is_ready = not is_leaving and is_ready(
            seen.deployments.get(self.handle.deployment_name)
        )
        has_failed = seen.status == ApplicationStatus.DEPLOY_FAILED
        self.is_expected = not is_leaving and not has_failed
        if has_failed and not self.is_ready:
            self.end()

    def end(self) -> None:
        """Fail the calls that are left: no replica is, so they would wait in vain."""
        while self.calls:
            self.calls.pop().reschedule(asyncio.get_running_loop().time())


def deployments_here(status: ServeStatus) -> dict[str, DeploymentStatusOverview]:
    """Return the deployments of the application that the caller belongs to."""
    name: str = serve.get_replica_context().app_name
    here: dict[str, DeploymentStatusOverview] = status.applications[name].deployments
    return here


def handle_of(model_id: str) -> DeploymentHandle:
    """Make a handle without asking whether the deployment is there yet: calls wait for it."""
    name, application = deployment_name(model_id), application_name(model_id)
    handle = serve.get_deployment_handle(name, application, _check_exists=False)
    return handle.options(_by_reference=True)
