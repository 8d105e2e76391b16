"""Addresses that replies and webhooks hold."""

from collections.abc import Awaitable, Callable

from serve_app.images.source import InputPicture
from serve_app.types import Api, Job

__all__ = ["LinkMaker", "fetch_result", "shown"]

_MAX_SHOWN = 2048  # characters; a longer picture field is inline data

LinkMaker = Callable[[str, str], Awaitable[str]]
"""Key of a result and base URL of this service to the link that a client reads it by."""

# Where clients of each family are sent to poll; all forms of fetch answer for all jobs.
_FETCH_PATHS = {
    Api.V3: "/api/v3/dreambooth/fetch/",
    Api.V4: "/api/v3/dreambooth/fetch/",  # so documented: V4 never pointed to itself
    Api.V5: "/api/v3/fetch/",
    Api.V6: "/api/v6/images/fetch/",
    Api.V7: "/api/v7/images/fetch/",
    Api.OPENAI: "/api/v6/images/fetch/",
}


def fetch_result(job: Job) -> str:
    """Address to poll for this job."""
    return f"{job.request.base_url}{_FETCH_PATHS[job.request.api]}{job.id}"


def shown(picture: InputPicture | None) -> str:
    """Return the link that a client sent for a picture; inline data no reply repeats."""
    if isinstance(picture, str) and len(picture) <= _MAX_SHOWN and "://" in picture:
        return picture
    return ""
