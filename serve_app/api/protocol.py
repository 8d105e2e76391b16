"""`Service`: the use cases that the HTTP API needs. Implemented by `serve_app.service`."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Protocol

from serve_app.images.source import InputPicture
from serve_app.jobs.moment import Mark, Moment
from serve_app.jobs.protocol import Idempotency
from serve_app.models import Catalogue
from serve_app.models.reload import ReloadState
from serve_app.types import ControlType, ImageSource, Job, JobRequest, OutputPlan, PictureFormat

__all__ = ["Load", "Readiness", "Service", "StoredFile"]


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A result file as `/files/` sends it."""

    data: bytes
    media_type: str


@dataclass(frozen=True, slots=True)
class Load:
    """How much is to do: jobs that are open, and seconds until a new one is begun."""

    num_open: int
    wait_s: float


@dataclass(frozen=True, slots=True)
class Readiness:
    """Which models and parts can answer right now, and whether the service as a whole can.

    parts: database, storage, safety. They say why calls fail; a load balancer that took a replica
    out because of them would take all.
    """

    is_ready: bool
    models: dict[str, bool]
    parts: dict[str, bool] = field(default_factory=dict)


class Service(Protocol):
    """Accepts jobs, waits for them, shows them."""

    @property
    def catalogue(self) -> Catalogue:
        """The served models as last seen; they may change between two calls."""
        ...

    @property
    def can_translate(self) -> bool:
        """Whether prompts of other languages can be translated."""
        ...

    @property
    def hint_models(self) -> frozenset[ControlType]:
        """Types of hints that a model makes here."""
        ...

    @property
    def has_checker(self) -> bool:
        """Whether the safety checker can be asked for."""
        ...

    async def catalogue_knowing(self, *ids: str) -> Catalogue:
        """The served models, looked at anew if one of these ids is not among them."""
        ...

    async def identify(self, key: str | None) -> str:
        """Return the id of this key's owner; raises `errors.InvalidKey`."""
        ...

    async def keep_input(self, field: str, picture: InputPicture) -> ImageSource:
        """Keep an input picture for every run of a job: a URL as it is, inline data as a file.

        Raises:
            errors.InvalidImage: neither a URL nor base64, or too large.
        """
        ...

    async def check_webhook(self, url: str) -> None:
        """Refuse an address that webhooks may not go to; raises `errors.InvalidRequest`."""
        ...

    async def check_room(self) -> None:
        """Refuse a call before its body is read; raises `errors.Overloaded`."""
        ...

    async def admit(self, key_id: str, idempotency: Idempotency | None = None) -> Job | None:
        """Refuse a generation call before any work; a repeated one gets the job it has already.

        Raises:
            errors.Overloaded: too many jobs are open.
            errors.RateLimited: this key sends too much.
            errors.InvalidRequest: the idempotency key came with another request before.
        """
        ...

    async def accept(self, request: JobRequest, idempotency: Idempotency | None = None) -> Job:
        """Accept a job and have it driven in the background; raises as `admit`.

        A repeated call gets the job of the first.
        """
        ...

    async def wait(self, job_id: int, hold_s: float, *, cancel_if_left: bool) -> Job:
        """Wait until the job is final or `hold_s` seconds passed.

        When the awaiting task is cancelled, because its client left, so is the job if the flag
        says so.
        """
        ...

    async def fetch(self, job_id: int, key_id: str) -> Job:
        """Show a job to its owner; raises `errors.JobNotFound`."""
        ...

    async def cancel(self, job_id: int, key_id: str) -> Job:
        """Cancel an open job of this owner, a final one stays; raises `errors.JobNotFound`."""
        ...

    async def delete(self, job_id: int, key_id: str) -> None:
        """Cancel a job of this owner if it is open, remove its files.

        Raises `errors.JobNotFound` and `errors.StorageUnavailable`.
        """
        ...

    async def publish(
        self, field: str, picture: InputPicture, key_id: str, *, crop: bool = False
    ) -> str:
        """Put an inline picture under a link that ends like those of `temp`; returns its key.

        crop: keep only the square in the middle.

        Raises:
            errors.InvalidImage: no inline picture, or too large.
            errors.RateLimited: this key sends too much.
        """
        ...

    async def is_nsfw(self, field: str, picture: InputPicture, key_id: str) -> bool:
        """Run the safety checker on a picture, by URL or inline; raises like `publish`."""
        ...

    async def request_reload(self, model_id: str, key_id: str) -> ReloadState:
        """Reload the weights of a model on every replica; wait for up to `reload.hold_s`.

        Raises:
            errors.RateLimited: this key sends too much, or the model was reloaded just now.
        """
        ...

    async def load(self) -> Load:
        """Return how much work is open."""
        ...

    async def eta_s(self, job: Job) -> float:
        """Seconds until the job is done."""
        ...

    async def queue_place(self, job: Job) -> int:
        """Place of a job among those of its model that wait, from 1 on; 0: none, or unknown."""
        ...

    def follow(
        self, job: Job, mark: Mark, *, has_previews: bool
    ) -> AsyncGenerator[Moment | None, None]:
        """Yield what is new of a job until it has ended; None: nothing was for long.

        Raises:
            errors.Overloaded: there are too many streams.
            errors.RateLimited: the key has too many.
        """
        ...

    async def issue_token(self, job_id: int, key_id: str) -> str:
        """Make a token that opens the stream of a job for `events.token_ttl_s`."""
        ...

    async def read_token(self, job_id: int, token: str) -> str:
        """Return the id of the key that a token is for; raises `errors.InvalidKey`."""
        ...

    async def is_live(self, key_id: str) -> bool:
        """Whether a key that was accepted may still be used."""
        ...

    async def readiness(self) -> Readiness:
        """Return which models can answer right now."""
        ...

    async def read_file(self, key: str) -> StoredFile | None:
        """Read a result file; None when there is none, or the key is no result's."""
        ...

    def reserve_output(
        self,
        samples: int,
        base64: bool,
        temp: bool,
        form: PictureFormat = PictureFormat.PNG,
        quality: int = 100,
    ) -> OutputPlan:
        """Fix the names of the results before there are any."""
        ...

    async def output_url(self, key: str, base_url: str) -> str:
        """Public link of a result file; raises `errors.StorageUnavailable`."""
        ...

    async def webhook_status(self, job: Job) -> str:
        """Return the state of a job's webhook: pending, delivered, failed; "" without one."""
        ...
