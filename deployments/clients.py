"""Deployment handles as our Protocols: the only place that calls `.remote`.

What goes wrong leaves this module as one of our errors (see `deployments.stage`).
"""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import structlog
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle, DeploymentResponse

from deployments.readiness import is_ready
from deployments.stage import last_of
from serve_app import errors
from serve_app.telemetry import logging
from serve_app.types import ImageSource, Job, JobResult

__all__ = ["GraphClient", "Stages"]

_log = structlog.get_logger()
_PROGRESS_TIMEOUT_S = 0.5  # the call waits for a free slot of the replica; stale progress will do
_CHECKED_PX = 512  # side that a picture is brought to before its check, which looks at 224


@dataclass(frozen=True)
class Stages:
    """The deployments that a driver needs; bound into ingress and janitor as one argument."""

    preprocess: DeploymentHandle
    generators: Mapping[str, DeploymentHandle]  # by model id
    safety: DeploymentHandle
    upload: DeploymentHandle


class GraphClient:
    """The stages as one call (`serve_app.jobs.graph.Graph`)."""

    def __init__(self, stages: Stages) -> None:
        # By reference: pixels stay in the object store, and gRPC's 4 MiB limit does not apply.
        self._preprocess = stages.preprocess.options(_by_reference=True)
        self._generators = {
            model_id: handle.options(_by_reference=True)
            for model_id, handle in stages.generators.items()
        }
        self._safety = stages.safety.options(_by_reference=True)
        self._upload = stages.upload.options(_by_reference=True)

    async def run(self, job: Job) -> JobResult:
        """Chain the stages; each receives the reference of the one before."""
        generator = self._generators.get(job.request.spec.model_id)
        if generator is None:
            raise errors.ModelNotFound(job.request.spec.model_id)
        return await last_of(self._chain(job, generator), JobResult)

    def _chain(self, job: Job, generator: DeploymentHandle) -> Iterator[DeploymentResponse]:
        request = job.request
        spec = request.spec
        about = logging.carried()
        images: DeploymentResponse | None = None
        if request.init_image is not None:
            images = self._preprocess.prepare.remote(
                spec.height, spec.width, request.init_image, request.mask_image, about=about
            )
            yield images
        pictures = generator.paint.remote(job.id, spec, images, about=about)
        yield pictures
        if request.safety is not None:
            pictures = self._safety.check.remote(pictures, request.safety, about=about)
            yield pictures
        yield self._upload.store.remote(request.output, pictures, about=about)

    async def check(self, picture: ImageSource) -> bool:
        """Prepare a client's picture like an input and have it checked."""
        return await last_of(self._chain_check(picture), bool)

    def _chain_check(self, picture: ImageSource) -> Iterator[DeploymentResponse]:
        about = logging.carried()
        images = self._preprocess.prepare.remote(
            _CHECKED_PX, _CHECKED_PX, picture, None, about=about
        )
        yield images
        yield self._safety.is_flagged.remote(images, about=about)

    async def progress(self, model_id: str) -> dict[int, float]:
        """Ask every replica of the model; those that do not answer in time are left out."""
        merged: dict[int, float] = {}
        generator = self._generators.get(model_id)
        if generator is None:
            return merged
        try:
            answers = await generator.broadcast("progress").results_async(
                timeout_s=_PROGRESS_TIMEOUT_S, return_exceptions=True
            )
        except (RayError, RayServeException, TimeoutError) as exc:
            _log.debug("progress_unknown", model_id=model_id, reason=type(exc).__name__)
            return merged
        for answer in answers:
            if isinstance(answer, dict):
                merged.update(answer)
        return merged

    async def readiness(self) -> dict[str, bool]:
        """Ask the controller, not the replicas: a busy one is ready, and would answer late."""
        status = await asyncio.to_thread(serve.status)
        deployments = status.applications[serve.get_replica_context().app_name].deployments
        return {
            model_id: is_ready(deployments.get(handle.deployment_name))
            for model_id, handle in self._generators.items()
        }
