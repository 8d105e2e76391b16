"""`Service`: the use cases that the HTTP API needs. Implemented by `serve_app.service`."""

from dataclasses import dataclass
from typing import Protocol

from serve_app.models import Catalogue
from serve_app.types import ImageSource, Job, JobRequest, OutputPlan

__all__ = ["Service", "StoredFile"]


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A result file as `/files/` sends it."""

    data: bytes
    media_type: str


class Service(Protocol):
    """Accepts jobs, waits for them, shows them."""

    @property
    def catalogue(self) -> Catalogue:
        """The served models."""
        ...

    async def identify(self, key: str | None) -> str:
        """Tell the id of this key's owner; raises `errors.InvalidKey`."""
        ...

    async def keep_input(self, field: str, text: str) -> ImageSource:
        """Keep an input picture for every run of a job: a URL as it is, inline data as a file.

        Raises:
            errors.InvalidImage: neither a URL nor base64, or too large.
        """
        ...

    async def submit(self, request: JobRequest) -> Job:
        """Accept a job and have it driven in the background.

        Raises:
            errors.Overloaded: too many jobs are open.
            errors.RateLimited: this key sends too much.
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

    async def eta_s(self, job: Job) -> float:
        """Seconds until the job is done."""
        ...

    async def readiness(self) -> dict[str, bool]:
        """Per model: can it answer right now?"""
        ...

    async def read_file(self, key: str) -> StoredFile | None:
        """Read a result file; None when there is none, or the key is no result's."""
        ...

    def reserve_output(self, samples: int, base64: bool, temp: bool) -> OutputPlan:
        """Fix the names of the results before there are any."""
        ...

    async def output_url(self, key: str, base_url: str) -> str:
        """Public link of a result file."""
        ...
