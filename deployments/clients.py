"""Deployment handles as our Protocols: the only place that calls `.remote`.

What goes wrong leaves this module as one of our errors (see `deployments.stage`).
"""

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass

import structlog
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle, DeploymentResponse

from deployments.stage import StageFailure, translate
from serve_app import errors
from serve_app.types import Job, JobResult

__all__ = ["GraphClient", "Stages"]

_log = structlog.get_logger()
_CONTROL_TIMEOUT_S = (
    2.0  # control calls wait for a free slot of the replica; progress can do without
)


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
        stages: list[DeploymentResponse] = []
        try:
            self._chain(job, generator, stages)
            result: JobResult | StageFailure = await stages[-1]
        except asyncio.CancelledError:
            for stage in stages:
                stage.cancel()
            raise
        except Exception as exc:
            raise translate(exc) from exc
        if isinstance(result, StageFailure):
            raise result.error
        return result

    def _chain(
        self, job: Job, generator: DeploymentHandle, stages: list[DeploymentResponse]
    ) -> None:
        request = job.request
        spec = request.spec
        images: DeploymentResponse | None = None
        if request.init_image is not None:
            images = self._preprocess.prepare.remote(
                spec.height, spec.width, request.init_image, request.mask_image
            )
            stages.append(images)
        stages.append(generator.paint.remote(job.id, spec, images))
        if request.safety is not None:
            stages.append(self._safety.check.remote(stages[-1], request.safety))
        stages.append(self._upload.store.remote(request.output, stages[-1]))

    async def progress(self, model_id: str) -> dict[int, float]:
        """Ask every replica of the model; those that do not answer in time are left out."""
        merged: dict[int, float] = {}
        try:
            answers = (
                await self._generators[model_id]
                .broadcast("progress")
                .results_async(timeout_s=_CONTROL_TIMEOUT_S, return_exceptions=True)
            )
        except (RayError, RayServeException, TimeoutError) as exc:
            _log.debug("progress_unknown", model_id=model_id, reason=type(exc).__name__)
            return merged
        for answer in answers:
            if isinstance(answer, dict):
                merged.update(answer)
        return merged

    async def readiness(self) -> dict[str, bool]:
        """One call to any replica of each model, all at a time."""
        answers = await asyncio.gather(
            *(_answers(handle.ready.remote()) for handle in self._generators.values())
        )
        return dict(zip(self._generators, answers, strict=True))


async def _answers(response: Awaitable[bool]) -> bool:
    try:
        async with asyncio.timeout(_CONTROL_TIMEOUT_S):
            return await response
    except (RayError, RayServeException, TimeoutError):
        return False
