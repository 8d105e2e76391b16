"""Deployment handles as our Protocols: the only place that calls `.remote`.

What goes wrong leaves this module as one of our errors (see `deployments.stage`).
"""

from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence

from ray.serve.handle import DeploymentHandle, DeploymentResponse

from deployments.directory import Directory
from deployments.replicas import ask_all
from deployments.stage import last_of
from deployments.stages import Stages
from serve_app import errors
from serve_app.pipelines.specs import named_add_ons
from serve_app.telemetry import logging
from serve_app.types import ImageSource, Job, JobResult, OutputPlan, Sight, Size

__all__ = ["GraphClient"]

# What a picture is brought to before its check, which looks at 224 x 224.
_CHECKED = Size(height=512, width=512)


class GraphClient:
    """The stages as one call (`serve_app.jobs.graph.Graph`)."""

    def __init__(self, stages: Stages) -> None:
        # By reference: pixels stay in the object store, and gRPC's 4 MiB limit does not apply.
        self._preprocess = stages.preprocess.options(_by_reference=True)
        named = stages.generators.items()
        generators = {model_id: one.options(_by_reference=True) for model_id, one in named}
        pool = stages.pool and stages.pool.options(_by_reference=True)
        self.models = Directory(generators, pool)
        self._safety = stages.safety.options(_by_reference=True)
        self._upload = stages.upload.options(_by_reference=True)

    async def run(self, job: Job) -> JobResult:
        """Chain the stages; each receives the reference of the one before."""
        generator = self._find(job.request.spec.model_id)
        async with self.models.calling(generator):
            return await last_of(self._chain(job, generator), JobResult)

    def _find(self, model_id: str) -> DeploymentHandle:
        generator = self.models.find(model_id)
        if generator is None:
            raise errors.ModelNotRunning(model_id)
        return generator

    def _chain(self, job: Job, generator: DeploymentHandle) -> Iterator[DeploymentResponse]:
        request, spec = job.request, job.request.spec
        log_context = logging.current_context()
        images: DeploymentResponse | None = None
        if any(request.pictures):
            if named_add_ons(spec):  # loaded meanwhile; the paint tells how it went
                generator.prefetch.remote(spec, log_context=log_context)
            images = self._preprocess.prepare.remote(
                spec, *request.pictures, spec.hints, job.stake, log_context=log_context
            )
            yield images
        pictures = generator.paint.remote(job.id, spec, images, job.stake, log_context=log_context)
        yield pictures
        if request.safety is not None:
            pictures = self._safety.check.remote(pictures, request.safety, log_context=log_context)
            yield pictures
        shown = (spec, images) if request.output.hint_keys else ()
        yield self._upload.store.remote(request.output, pictures, *shown, log_context=log_context)

    async def check(self, picture: ImageSource) -> bool:
        """Prepare a client's picture like an input and have it checked."""
        return await last_of(self._chain_check(picture), bool)

    def _chain_check(self, picture: ImageSource) -> Iterator[DeploymentResponse]:
        log_context = logging.current_context()
        images = self._preprocess.prepare.remote(_CHECKED, picture, None, log_context=log_context)
        yield images
        yield self._safety.is_flagged.remote(images, log_context=log_context)

    async def publish(self, field: str, data: bytes, plan: OutputPlan, *, crop: bool) -> None:
        """Re-encode and store a client's picture; its pixels never come here."""
        log_context = logging.current_context()
        pictures = self._preprocess.reencode.remote(field, data, crop, log_context=log_context)
        stored = self._upload.store.remote(plan, pictures, log_context=log_context)
        await last_of(iter((pictures, stored)), JobResult)

    async def progress(self, model_id: str) -> dict[int, float]:
        """Ask every replica of the model; those that do not answer in time are left out."""
        return dict(ChainMap(*await ask_all(self.models.find(model_id), dict, "progress")))

    async def look(self, model_id: str, watched: Mapping[int, int | None]) -> dict[int, Sight]:
        """Ask every replica of the model, as in `progress`."""
        return dict(ChainMap(*await ask_all(self.models.find(model_id), dict, "look", watched)))

    async def load_s(self, model_id: str) -> float:
        """Ask every replica of the Pool; the one that would be first counts."""
        generator = self.models.find(model_id)
        if generator is None or not self.models.is_pool(generator):
            return 0.0
        return min(await ask_all(generator, float, "load_s", model_id), default=0.0)

    async def notify_replicas(self, model_id: str) -> frozenset[str]:
        """Notify every replica of the model; those too slow to answer look by themselves."""
        generator = self._find(model_id)
        heard = frozenset(await ask_all(generator, str, "notify", model_id))
        if not heard and self.models.is_pool(generator):
            generator.preload.remote(model_id)  # no replica of the Pool has it in memory
        return heard

    async def check_safety_runs(self) -> None:
        """Ask the controller."""
        if not await self.models.runs(self._safety):
            raise errors.SafetyCheckFailed("no replica runs")

    async def readiness(self, model_ids: Sequence[str]) -> dict[str, bool]:
        """Ask the controller."""
        return await self.models.readiness(model_ids)
