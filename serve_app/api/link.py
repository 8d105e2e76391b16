"""Addresses that replies and webhooks hold."""

from serve_app.types import Api, Job

__all__ = ["fetch_result", "file_url"]

# Where clients of each family are sent to poll; all forms of fetch answer for all jobs.
_FETCH_PATHS = {
    Api.V3: "/api/v3/dreambooth/fetch/",
    Api.V4: "/api/v3/dreambooth/fetch/",  # so documented: V4 never pointed to itself
    Api.V6: "/api/v6/images/fetch/",
    Api.V7: "/api/v7/images/fetch/",
}


def fetch_result(job: Job) -> str:
    """Address to poll for this job."""
    return f"{job.request.base_url}{_FETCH_PATHS[job.request.api]}{job.id}"


def file_url(key: str, base_url: str) -> str:
    """Address of a file that this server hands out itself."""
    return f"{base_url}/files/{key}"
