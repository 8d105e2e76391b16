"""`Directory`: which deployment paints a model, and whether it can right now.

That is the model's deployment in this application, or the one in an application of its own
(`serve_app.models.application`), or the Pool. Applications come and go while the service runs: the
controller is asked every few seconds, and handles are made when one is first seen.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence

import structlog
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ServeStatus

from deployments import controller
from deployments.readiness import ModelApplication, handle_of, is_ready, remembering
from serve_app import errors
from serve_app.models.application import application_name, deployment_name, model_of

__all__ = ["Directory"]

_log = structlog.get_logger()


class Directory:
    """One per process that calls models.

    Args:
        generators: deployments of this application by model id.
        pool: for all models that have neither deployment nor application; none: there is no Pool.
    """

    def __init__(
        self, generators: Mapping[str, DeploymentHandle], pool: DeploymentHandle | None
    ) -> None:
        self._generators = generators
        self._pool = pool
        self._applications: dict[str, ModelApplication] = {}  # by model id
        self._seen = ServeStatus()
        self._looking = asyncio.Lock()  # or an old look might end after a newer one

    def find(self, model_id: str) -> DeploymentHandle | None:
        """Return who paints a model; the Pool does while the model's application is not ready."""
        if (generator := self._generators.get(model_id)) is not None:
            return generator
        own = self._applications.get(model_id)
        if own is not None and (own.is_ready or (own.is_expected and self._pool is None)):
            return own.handle
        return self._pool and self._pool.options(multiplexed_model_id=model_id)  # its router's key

    def model_ids(self) -> list[str]:
        """Return the models that have replicas of their own, here or in an application."""
        return [*self._generators, *self._applications]

    def is_pool(self, handle: DeploymentHandle) -> bool:
        """Whether a handle that `find` gave is the Pool's."""
        return self._pool is not None and handle.deployment_name == self._pool.deployment_name

    @contextlib.asynccontextmanager
    async def calling(self, handle: DeploymentHandle) -> AsyncIterator[None]:
        """Surround a call: one that waits for a replica of an application that goes would not end.

        Raises:
            errors.ReplicaLost: the application is gone or failed, and no replica is left.
        """
        own = self._applications.get(model_of(handle.app_name) or "")
        if own is None:
            yield
            return
        call = asyncio.timeout(None)
        own.calls.add(call)
        try:
            async with call:
                yield
        except TimeoutError as exc:
            raise errors.ReplicaLost("the application of the model has no replica") from exc
        finally:
            own.calls.discard(call)

    async def readiness(self, model_ids: Sequence[str]) -> dict[str, bool]:
        """Ask the controller, not the replicas: a busy one is ready, and would answer late."""
        status = await self.look()
        found: dict[str, bool] = {}
        for model_id in model_ids:
            handle = self.find(model_id)
            if handle is not None and model_of(handle.app_name) == model_id:
                found[model_id] = self._applications[model_id].is_ready
            else:
                found[model_id] = handle is not None and is_ready(status, handle)
        return found

    async def runs(self, handle: DeploymentHandle) -> bool:
        """Return whether a deployment can answer."""
        return is_ready(await self.look(), handle)

    async def run(self, period_s: float) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(period_s)
            try:
                await self.look()
            except (RayError, RayServeException) as exc:
                _log.warning("applications_unknown", reason=type(exc).__name__)

    async def look(self) -> ServeStatus:
        """Learn which applications there are."""
        async with self._looking:
            self._seen = status = remembering(await asyncio.to_thread(controller.ask), self._seen)
            there = {model_id for name in status.applications if (model_id := model_of(name))}
            for model_id in there:
                if model_id not in self._applications:
                    names = deployment_name(model_id), application_name(model_id)
                    self._applications[model_id] = ModelApplication(handle_of(*names))
                self._applications[model_id].learn(status)
            for model_id in self._applications.keys() - there:
                self._applications.pop(model_id).end()
        return status
