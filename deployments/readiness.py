"""What the controller knows of deployments, as an answer to: can they serve right now?"""

import asyncio
import dataclasses

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ApplicationStatus, DeploymentStatus, ReplicaState, ServeStatus

from deployments import controller

__all__ = ["ModelApplication", "handle_of", "is_ready", "is_staying", "remembering"]


def is_ready(status: ServeStatus, handle: DeploymentHandle) -> bool:
    """A replica runs, which means that its weights are loaded; or none should, until asked."""
    application = status.applications.get(handle.app_name)
    deployment = application and application.deployments.get(handle.deployment_name)
    if not deployment:
        return False
    if deployment.replica_states.get(ReplicaState.RUNNING, 0) > 0:
        return True
    return deployment.status == DeploymentStatus.HEALTHY and not deployment.replica_states


def remembering(status: ServeStatus, before: ServeStatus) -> ServeStatus:
    """Fill in the deployments of applications that are built anew: the controller tells of none.

    Their replicas run all the while.
    """
    applications = dict(status.applications)
    for name, now in status.applications.items():
        is_built = now.status == ApplicationStatus.DEPLOYING and not now.deployments
        if is_built and name in before.applications:
            known = before.applications[name].deployments
            applications[name] = dataclasses.replace(now, deployments=known)
    return dataclasses.replace(status, applications=applications)


async def is_staying() -> bool:
    """Return whether the application that the caller belongs to is going to stay."""
    name: str = serve.get_replica_context().app_name
    try:
        status = await asyncio.to_thread(controller.ask)
    except (RayError, RayServeException):  # the controller is gone
        return False
    application = status.applications.get(name)
    return application is not None and application.status != ApplicationStatus.DELETING


@dataclasses.dataclass(slots=True)
class ModelApplication:
    """One that exists.

    is_ready: it can answer now. is_expected: it will, unless something is wrong with it.
    calls: at work, or waiting for a replica.
    """

    handle: DeploymentHandle
    is_ready: bool = False
    is_expected: bool = False
    calls: set[asyncio.Timeout] = dataclasses.field(default_factory=set)

    def learn(self, status: ServeStatus) -> None:
        """Take up what the controller says."""
        seen = status.applications[self.handle.app_name].status
        is_leaving = seen == ApplicationStatus.DELETING
        self.is_ready = not is_leaving and is_ready(status, self.handle)
        has_failed = seen == ApplicationStatus.DEPLOY_FAILED
        self.is_expected = not is_leaving and not has_failed
        if has_failed and not self.is_ready:
            self.end()

    def end(self) -> None:
        """Fail the calls that are left: no replica is, so they would wait in vain."""
        while self.calls:
            self.calls.pop().reschedule(asyncio.get_running_loop().time())


def handle_of(deployment: str, application: str) -> DeploymentHandle:
    """Make a handle without asking whether the deployment is there yet: calls wait for it."""
    handle = serve.get_deployment_handle(deployment, application, _check_exists=False)
    return handle.options(_by_reference=True)
