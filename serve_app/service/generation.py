"""`GenerationService`: the use cases behind the HTTP API. Knows no HTTP, no Ray, no torch."""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TypeVar

from serve_app import errors
from serve_app.api.protocol import Load, Readiness, StoredFile
from serve_app.background import Background
from serve_app.config import AppConfig
from serve_app.config.http import AuthMode
from serve_app.images.source import InputPicture
from serve_app.jobs.audience import Audience
from serve_app.jobs.driver import Driver
from serve_app.jobs.graph import Graph
from serve_app.jobs.moment import Mark, Moment
from serve_app.jobs.protocol import Idempotency, JobStore, KeyStore
from serve_app.jobs.queue import Queue
from serve_app.models import Catalogue, CatalogueView
from serve_app.models.reload import Reloads, ReloadState
from serve_app.service.admission import Admission
from serve_app.service.callers import Callers
from serve_app.service.dependencies import Dependencies
from serve_app.service.follower import Follower
from serve_app.service.recent import Recent
from serve_app.service.uploads import Uploads
from serve_app.service.wait import JobWait
from serve_app.storage import names
from serve_app.storage.link import FileLinks
from serve_app.storage.protocol import ObjectStore
from serve_app.telemetry.actor import acting_as
from serve_app.types import (
    ControlType,
    ImageSource,
    Job,
    JobRequest,
    JobState,
    OutputPlan,
    PictureFormat,
)
from serve_app.webhooks.protocol import DeliveryState, Outbox
from serve_app.webhooks.receivers import Receivers

__all__ = ["GenerationService", "Stores"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stores:
    """What is kept: jobs, files, keys, webhook messages."""

    jobs: JobStore
    files: ObjectStore
    keys: KeyStore
    outbox: Outbox


class GenerationService:
    """Accepts jobs, waits for them, shows them (`serve_app.api.protocol.Service`)."""

    def __init__(
        self,
        stores: Stores,
        view: CatalogueView,
        driver: Driver,
        graph: Graph,
        reloads: Reloads,
        config: AppConfig,
    ) -> None:
        self._view = view
        self._jobs = stores.jobs
        self._files = stores.files
        self._outbox = stores.outbox
        self._links = FileLinks(stores.files, config.storage)
        self._driver = driver
        self._graph = graph
        self._reloads = reloads
        self._config = config
        self._has_pool = view.fixed.has_pool(config.pool)
        # What has to end although the call that wants it is cancelled.
        self._background = Background()
        self._admission = Admission(stores.jobs, driver, config)
        self._uploads = Uploads(stores.files, graph, config.images)
        self._receivers = Receivers(config.webhooks)
        self._dependencies = Dependencies(stores.jobs, stores.files, graph)
        self._recent = Recent()
        self._waits = JobWait(driver, self._get)
        self._callers = Callers(stores.keys, stores.jobs, self._recent, config)
        self._queue = Queue(stores.jobs)
        has_keys = config.auth.mode is AuthMode.KEYS
        self.audience = Audience(graph, self._queue, config.events, tells_keys_apart=has_keys)
        self._follower = Follower(
            self.audience, self._queue, config.events, self._waits.during, self.eta_s
        )

    @property
    def catalogue(self) -> Catalogue:
        """The served models as last seen."""
        return self._view.now

    @property
    def can_translate(self) -> bool:
        """Whether prompts of other languages can be translated."""
        return self._config.engine.translator is not None

    @property
    def hint_models(self) -> frozenset[ControlType]:
        """Types of hints that a model makes here."""
        named = self._config.hints.paths
        return frozenset(one for one in ControlType if one.setting in named)

    @property
    def has_checker(self) -> bool:
        """Whether the safety checker can be asked for."""
        return self._config.safety.checkpoint is not None

    async def catalogue_knowing(self, *ids: str) -> Catalogue:
        """The served models, looked at anew if one of these ids is not among them."""
        return await self._view.knowing(*ids)

    async def keep_input(self, field: str, picture: InputPicture) -> ImageSource:
        """Keep an input picture for every run of the job: a URL as it is, inline data as a file.

        Raises:
            errors.InvalidImage: neither a URL nor base64, or too large.
        """
        return await self._uploads.keep(field, picture)

    async def check_webhook(self, url: str) -> None:
        """Refuse an address that webhooks may not go to, before a job promises one.

        Raises:
            errors.InvalidRequest: it may not be called, or does not exist.
        """
        await self._receivers.check(url)

    async def check_room(self) -> None:
        """Refuse a call of which nothing is known yet, while no job is accepted.

        Raises:
            errors.Overloaded: too many jobs are open.
        """
        await self._admission.check_room()

    async def admit(self, key_id: str, idempotency: Idempotency | None = None) -> Job | None:
        """Refuse a generation call before any work; a repeated one gets the job it has already.

        Raises:
            errors.Overloaded: too many jobs are open.
            errors.RateLimited: this key sends too much, or has too many open jobs.
            errors.InvalidRequest: the idempotency key came with another request before.
        """
        return await self._admission.admit(key_id, idempotency)

    async def accept(self, request: JobRequest, idempotency: Idempotency | None = None) -> Job:
        """Accept a job; from here on it is not lost. A repeated call gets the job of the first.

        Raises:
            errors.Overloaded: too many jobs are open.
            errors.RateLimited: too many of them are this key's.
            errors.InvalidRequest: the idempotency key came with another request before.
        """
        if self._has_pool:  # canaries are painted there
            model_id = self.catalogue.draw(request.spec.model_id, random.random())
            spec = request.spec.model_copy(update={"model_id": model_id})
            request = request.model_copy(update={"spec": spec})
        accepting = self._background.start(self._admission.accept(request, idempotency))
        try:
            job = self._recent.see(await asyncio.shield(accepting))
        except asyncio.CancelledError:
            if request.webhook is None:  # the client left, and nobody will tell it the job's id
                self._background.start(self._withdraw(accepting))
            raise
        if idempotency is None:  # else perhaps one that has its place
            self._queue.joined(job)
        return job

    async def wait(self, job_id: int, hold_s: float, *, cancel_if_left: bool) -> Job:
        """Wait until the job is final or the hold is over.

        When the caller is cancelled, because its client left, so is the job if the flag says so.
        """
        try:
            return await self._waits.during(job_id, hold_s)
        except asyncio.CancelledError:
            if cancel_if_left:
                await asyncio.shield(self._background.start(self._cancel(job_id)))
            raise

    async def fetch(self, job_id: int, key_id: str) -> Job:
        """Show a job to its owner, with live progress.

        While the database does not answer, a job is as it was last seen here: it goes on.

        Raises:
            errors.JobNotFound: no such job, or another key's.
        """
        try:
            job = await self._owned(job_id, key_id)
        except errors.JobStoreUnavailable:
            known = self._recent.job(job_id)
            if known is None or known.request.key_id != key_id:
                raise
            job = known
        if job.state is not JobState.PROCESSING:
            return job
        live = await self._graph.progress(job.request.spec.model_id)
        self._queue.saw(job.request.spec.model_id, live.keys())
        return job.model_copy(update={"progress": live.get(job.id, job.progress)})

    async def cancel(self, job_id: int, key_id: str) -> Job:
        """Cancel an open job of this owner; a final one stays as it is.

        Raises:
            errors.JobNotFound: no such job, or another key's.
        """
        await self._driver.cancel(await self._owned(job_id, key_id))
        return await self._get(job_id)

    async def delete(self, job_id: int, key_id: str) -> None:
        """Cancel a job of this owner if it is open, and remove its files, inputs too.

        Raises:
            errors.JobNotFound: no such job, or another key's.
            errors.StorageUnavailable: the files are still there.
        """
        job = await self._owned(job_id, key_id)
        await self._driver.cancel(job)
        stored = [image.stored_key for image in job.request.pictures if image]
        for key in (*job.request.output.files, *stored):
            if key is not None:
                await self._files.delete(key)

    async def publish(
        self, field: str, picture: InputPicture, key_id: str, *, crop: bool = False
    ) -> str:
        """Put an inline picture under a link that ends like those of `temp`; returns its key.

        Raises:
            errors.InvalidImage: no inline picture, or too large.
            errors.RateLimited: this key sends too much.
        """
        await self._admission.count(key_id)
        return await self._uploads.publish(field, picture, crop=crop)

    async def is_nsfw(self, field: str, picture: InputPicture, key_id: str) -> bool:
        """Run the safety checker on a client's picture.

        Raises:
            errors.InvalidImage: no picture, or it could not be had.
            errors.RateLimited: this key sends too much.
            errors.SafetyCheckFailed: the check could not be made.
        """
        await self._admission.count(key_id)
        return await self._graph.check(await self.keep_input(field, picture))

    async def request_reload(self, model_id: str, key_id: str) -> ReloadState:
        """Reload the weights of a model on every replica; wait for a while.

        Raises:
            errors.RateLimited: this key sends too much, or the model was reloaded just now.
        """
        await self._admission.count(key_id)
        with acting_as(f"key:{key_id}"):
            return await self._reloads.request_limited(model_id)

    async def load(self) -> Load:
        """Return how much work is open."""
        num_open = sum((await self._jobs.count_open()).values())
        return Load(num_open, self._driver.eta.wait_s(num_open))

    async def eta_s(self, job: Job) -> float:
        """Seconds until the job is done, from measured load and run times and the turns of keys."""
        spec, num_ahead = job.request.spec, 0
        if job.state is JobState.QUEUED:
            with contextlib.suppress(errors.JobStoreUnavailable):  # then without the queue
                num_ahead = await self._queue.ahead(job)
        load_s = 0.0 if job.progress else await self._graph.load_s(spec.model_id)
        return load_s + self._driver.eta.estimate_s(spec, num_ahead, job.progress)

    async def queue_place(self, job: Job) -> int:
        """Return the place of a job among those of its model that wait; 0: none, or unknown."""
        with contextlib.suppress(errors.JobStoreUnavailable):
            return await self._queue.place(job)
        return 0

    def follow(
        self, job: Job, mark: Mark, *, has_previews: bool
    ) -> AsyncGenerator[Moment | None, None]:
        """Yield what is new of a job until it has ended; None: nothing was for long.

        Raises:
            errors.Overloaded: there are too many streams.
            errors.RateLimited: the key has too many.
        """
        return self._follower.follow(job, mark, has_previews=has_previews)

    async def issue_token(self, job_id: int, key_id: str) -> str:
        """Make a token that opens the stream of a job for `events.token_ttl_s`."""
        return await self._callers.issue_token(job_id, key_id)

    async def read_token(self, job_id: int, token: str) -> str:
        """Return the id of the key that a token is for; raises `errors.InvalidKey`."""
        return await self._callers.read_token(job_id, token)

    async def is_live(self, key_id: str) -> bool:
        """Whether a key that was accepted may still be used."""
        return await self._callers.is_live(key_id)

    async def identify(self, key: str | None) -> str:
        """Return the id of the key's owner; raises `errors.InvalidKey`."""
        return await self._callers.identify(key)

    async def readiness(self) -> Readiness:
        """Return which models can answer right now.

        A model that was added at run time and waits for its application, or loads there, must not
        take the others out of their load balancer.
        """
        models = await self._graph.readiness([entry.id for entry in self.catalogue])
        needed = [
            entry.id
            for entry in self.catalogue
            if entry.id in self._view.fixed or entry.placement == "pool"
        ]
        parts = await self._dependencies.look()
        return Readiness(all(models.get(model_id) for model_id in needed), models, parts)

    async def read_file(self, key: str) -> StoredFile | None:
        """Read a result file for `/files/`; None when there is none, or it is no result."""
        if not names.is_result(key):
            return None
        data = await self._files.get(key)
        return None if data is None else StoredFile(data=data, media_type=names.media_type(key))

    def reserve_output(
        self,
        samples: int,
        base64: bool,
        temp: bool,
        form: PictureFormat = PictureFormat.PNG,
        quality: int = 100,
    ) -> OutputPlan:
        """Fix the names of the results before there are any: these are the `future_links`."""
        keys = names.reserve(samples, base64=base64, temp=temp, form=form)
        return OutputPlan(keys=keys, base64=base64, temp=temp, format=form, quality=quality)

    async def output_url(self, key: str, base_url: str) -> str:
        """Public link of a result file, as its store makes it.

        Raises:
            errors.StorageUnavailable: the store's credentials could not be had.
        """
        return await self._links.make(key, base_url)

    async def webhook_status(self, job: Job) -> str:
        """Return the state of a job's webhook; "" if it has none, or it ended long ago."""
        if job.request.webhook is None:
            return ""
        if not job.state.is_final:
            return DeliveryState.PENDING
        with contextlib.suppress(errors.JobStoreUnavailable):
            return await self._outbox.state_of(job.id) or ""
        return ""

    async def _get(self, job_id: int) -> Job:
        job = await self._jobs.get(job_id)
        if job is None:
            raise errors.JobNotFound(job_id)
        return self._recent.see(job)

    async def _owned(self, job_id: int, key_id: str) -> Job:
        job = await self._get(job_id)
        if job.request.key_id != key_id:
            raise errors.JobNotFound(job_id)
        return job

    async def _withdraw(self, accepting: "asyncio.Task[Job]") -> None:
        with contextlib.suppress(errors.DreamserveError):  # refused: nothing to take back
            await self._driver.cancel(await accepting)

    async def _cancel(self, job_id: int) -> None:
        await self._driver.cancel(await self._get(job_id))
