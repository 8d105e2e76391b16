"""`FakeService`: the use cases without jobs, graph or files, for tests of the wire."""

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Iterable

from serve_app import errors
from serve_app.api.protocol import Load, Readiness, StoredFile
from serve_app.config import ImagesConfig
from serve_app.images import source
from serve_app.images.source import InputPicture
from serve_app.jobs.moment import EndMoment, Mark, Moment
from serve_app.jobs.protocol import Idempotency
from serve_app.models import AddOn, Catalogue, ModelEntry
from serve_app.models.protocol import Desired, ReplicaPhase, ReplicaReport
from serve_app.models.reload import ReloadState
from serve_app.types import (
    ControlType,
    ImageSource,
    Job,
    JobFailure,
    JobRequest,
    JobResult,
    JobState,
    OutputPlan,
    PictureFormat,
)

__all__ = ["FakeService"]

_FIRST_ID = 13446970  # of the documented reply
_PREFIX = "dc639bd6-d605-42c7-950e-48c531124d0d"  # as well
_MAX_BYTES = ImagesConfig().max_bytes


class FakeService:
    """Settles each job when it is waited for: with `outcome`, or not at all when that is None.

    `keys` maps API keys to owners; None lets everybody in as "open". `refusal` is raised by
    `submit`. What was asked for is in `jobs`, `holds` and `inputs`.
    """

    def __init__(
        self,
        entries: Iterable[ModelEntry],
        keys: dict[str, str] | None = None,
        add_ons: Iterable[AddOn] = (),
    ) -> None:
        self.catalogue = Catalogue(entries, add_ons)
        self.keys = keys
        self.outcome: JobResult | JobFailure | None = JobResult(
            keys=(), nsfw=(False,), generation_time_s=20.970642805099487
        )
        self.refusal: Exception | None = None
        self.never_answers = False
        self.can_translate = False
        self.delivery = "pending"  # of every webhook
        self.hint_models: frozenset[ControlType] = frozenset()
        self.has_checker = False
        self.held = asyncio.Event()  # set once somebody waits for a job
        self.ready = {entry.id: True for entry in self.catalogue}
        self.files: dict[str, StoredFile] = {}
        self.jobs: dict[int, Job] = {}
        self.holds: list[float] = []
        self.inputs: list[tuple[str, InputPicture]] = []
        self.published: list[tuple[str, InputPicture, bool]] = []
        self.deleted: list[int] = []
        self.flags = False
        self.moments: list[Moment | None] = []
        self.follows: list[Mark] = []
        self.closed_webhooks: set[str] = set()
        self.reloads: list[str] = []
        self.reloaded: tuple[ReplicaPhase, dict[str, ReplicaPhase]] = (ReplicaPhase.READY, {})
        self._named: dict[tuple[str, str], tuple[int, Idempotency]] = {}

    async def catalogue_knowing(self, *_ids: str) -> Catalogue:
        """Know all there is."""
        return self.catalogue

    async def identify(self, key: str | None) -> str:
        """Look the key up."""
        if self.keys is None:
            return "open"
        if key is None or key not in self.keys:
            raise errors.InvalidKey()
        return self.keys[key]

    async def keep_input(self, field: str, picture: InputPicture) -> ImageSource:
        """Remember what came, and read it as the service does."""
        self.inputs.append((field, picture))
        parsed = await source.read(field, picture, _MAX_BYTES)
        if isinstance(parsed, str):
            return ImageSource(field=field, url=parsed)
        return ImageSource(field=field, stored_key=f"inputs/{len(self.inputs)}")

    async def check_webhook(self, url: str) -> None:
        """Refuse what is in `closed_webhooks`."""
        if url in self.closed_webhooks:
            raise errors.InvalidRequest("webhook", "The webhook cannot be called.")

    async def check_room(self) -> None:
        """Raise `refusal` if there is no room."""
        if isinstance(self.refusal, errors.Overloaded):
            raise self.refusal

    async def admit(self, key_id: str, idempotency: Idempotency | None = None) -> Job | None:
        """Find a repeated call, or raise `refusal`."""
        first = idempotency and self._named.get((key_id, idempotency.key))
        if first and idempotency:
            first[1].check(idempotency.digest)
            return self.jobs[first[0]]
        if self.refusal is not None:
            raise self.refusal
        return None

    async def accept(self, request: JobRequest, idempotency: Idempotency | None = None) -> Job:
        """Accept, unless `admit` has something to say."""
        if repeated := await self.admit(request.key_id, idempotency):
            return repeated
        job_id = _FIRST_ID + len(self.jobs)
        if idempotency:
            self._named[request.key_id, idempotency.key] = (job_id, idempotency)
        self.jobs[job_id] = Job(id=job_id, state=JobState.QUEUED, request=request, created_at=0.0)
        return self.jobs[job_id]

    async def wait(self, job_id: int, hold_s: float, *, cancel_if_left: bool) -> Job:
        """Settle with `outcome`; without a hold nothing is settled."""
        self.holds.append(hold_s)
        self.held.set()
        try:
            if self.never_answers:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            if cancel_if_left:
                self._update(job_id, state=JobState.CANCELLED)
            raise
        return self.settle(job_id) if hold_s > 0 else self.jobs[job_id]

    def settle(self, job_id: int) -> Job:
        """Settle an open job with the `outcome`."""
        job = self.jobs[job_id]
        if job.state.is_final or self.outcome is None:
            return job
        if isinstance(self.outcome, JobFailure):
            return self._update(job_id, state=JobState.FAILED, failure=self.outcome)
        result = self.outcome.model_copy(update={"keys": job.request.output.keys})
        return self._update(job_id, state=JobState.SUCCESS, result=result, progress=1.0)

    async def fetch(self, job_id: int, key_id: str) -> Job:
        """Show a job to its owner."""
        job = self.jobs.get(job_id)
        if job is None or job.request.key_id != key_id:
            raise errors.JobNotFound(job_id)
        return job

    async def cancel(self, job_id: int, key_id: str) -> Job:
        """Cancel an open job."""
        job = await self.fetch(job_id, key_id)
        return job if job.state.is_final else self._update(job_id, state=JobState.CANCELLED)

    async def delete(self, job_id: int, key_id: str) -> None:
        """Remember the id and cancel an open job."""
        await self.cancel(job_id, key_id)
        self.deleted.append(job_id)

    async def publish(
        self,
        field: str,
        picture: InputPicture,
        key_id: str,  # noqa: ARG002
        *,
        crop: bool = False,
    ) -> str:
        """Remember what was asked; a URL is refused."""
        if (await self.keep_input(field, picture)).url is not None:
            raise errors.InvalidImage(field, f"The {field} field must be base64 or a data URI.")
        self.published.append((field, picture, crop))
        return f"temp/0-{_PREFIX}.png"

    async def is_nsfw(self, field: str, picture: InputPicture, key_id: str) -> bool:  # noqa: ARG002
        """Return `flags`."""
        await self.keep_input(field, picture)
        return self.flags

    async def request_reload(self, model_id: str, key_id: str) -> ReloadState:  # noqa: ARG002
        """Return `reloaded`; remember the id."""
        self.reloads.append(model_id)
        phase, replicas = self.reloaded
        weights_version = len(self.reloads)
        return ReloadState(
            wanted=Desired(model_id=model_id, weights_version=weights_version),
            phase=phase,
            eta_s=80.4 if phase is ReplicaPhase.LOADING else 0.0,
            replicas=tuple(
                ReplicaReport(
                    model_id=model_id,
                    replica_id=replica_id,
                    weights_version=weights_version,
                    phase=said,
                    serving=weights_version - 1,
                    reason="/secret/path",
                )
                for replica_id, said in replicas.items()
            ),
        )

    async def load(self) -> Load:
        """Count the open jobs."""
        num_open = sum(not job.state.is_final for job in self.jobs.values())
        return Load(num_open, 2.5 * num_open)

    async def eta_s(self, job: Job) -> float:
        """Return a constant."""
        return 12.3 * (1 - job.progress)

    async def queue_place(self, job: Job) -> int:
        """Count the open jobs before it, until it has begun."""
        ahead = [other for other in self.jobs.values() if other.id < job.id]
        waits = not (job.state.is_final or job.progress)
        return waits * (1 + sum(not other.state.is_final for other in ahead))

    async def follow(
        self,
        job: Job,
        mark: Mark,
        *,
        has_previews: bool,  # noqa: ARG002  # `moments` are as they are
    ) -> AsyncGenerator[Moment | None, None]:
        """Yield `moments`, then settle the job as `wait` does."""
        self.follows.append(mark)
        if self.refusal is not None:
            raise self.refusal
        for moment in self.moments:
            yield moment
        ended = self.settle(job.id)
        if ended.state.is_final:
            yield EndMoment(dataclasses.replace(mark, has_ended=True), ended)

    async def issue_token(self, job_id: int, key_id: str) -> str:
        """Make a token that anybody could make."""
        return f"{job_id}-{key_id}"

    async def read_token(self, job_id: int, token: str) -> str:
        """Read a token of this job."""
        if not token.startswith(f"{job_id}-"):
            raise errors.InvalidKey("no token")
        return token.removeprefix(f"{job_id}-")

    async def is_live(self, key_id: str) -> bool:
        """Whether `keys` still has the owner."""
        return self.keys is None or key_id in self.keys.values()

    async def readiness(self) -> Readiness:
        """Return `ready`; all models are needed."""
        parts = {"database": True, "storage": False, "safety": True}  # which decides nothing
        return Readiness(bool(self.ready) and all(self.ready.values()), self.ready, parts)

    async def read_file(self, key: str) -> StoredFile | None:
        """Read from `files`."""
        return self.files.get(key)

    def reserve_output(
        self,
        samples: int,
        base64: bool,
        temp: bool,
        form: PictureFormat = PictureFormat.PNG,
        quality: int = 100,
    ) -> OutputPlan:
        """Use the names of the documented reply."""
        ending = "base64" if base64 else form.value
        folder = "temp" if temp else "generations"
        keys = tuple(f"{folder}/{_PREFIX}-{index}.{ending}" for index in range(samples))
        return OutputPlan(keys=keys, base64=base64, temp=temp, format=form, quality=quality)

    async def output_url(self, key: str, base_url: str) -> str:
        """Point to this server."""
        return f"{base_url}/files/{key}"

    async def webhook_status(self, job: Job) -> str:
        """Return `delivery` for a job that has a webhook."""
        return "" if job.request.webhook is None else self.delivery

    def _update(self, job_id: int, **changes: object) -> Job:
        self.jobs[job_id] = self.jobs[job_id].model_copy(update=changes)
        return self.jobs[job_id]
