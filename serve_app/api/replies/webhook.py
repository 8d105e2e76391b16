"""The body that a webhook gets when its job is settled (api-reference 9)."""

import json

from serve_app.api.replies.link import LinkMaker
from serve_app.api.replies.meta import linked_meta, meta
from serve_app.types import Job, JobFailure, JobResult

__all__ = ["WebhookWriter"]


class WebhookWriter:
    """Writes bodies; receivers find status, id and track_id in every one."""

    def __init__(self, make_link: LinkMaker) -> None:
        self._make_link = make_link

    async def write(self, job: Job, outcome: JobResult | JobFailure) -> str:
        """Write the JSON of a settled job (`serve_app.jobs.driver.WebhookBody`).

        Raises:
            errors.StorageUnavailable: the store could not make the links.
        """
        if isinstance(outcome, JobFailure):
            fields = _failed(job, outcome)
        else:
            base_url = job.request.base_url
            links = [await self._make_link(key, base_url) for key in outcome.keys]
            done = job.model_copy(update={"result": outcome})
            shown = await linked_meta(done, self._make_link, base_url)
            fields = _succeeded(job, outcome, links) | {"meta": shown}
        # Not orjson: it refuses integers over 64 bits and lone surrogates, and a job whose body
        # cannot be written would be run again for ever.
        return json.dumps(fields, separators=(",", ":"))


def _failed(job: Job, failure: JobFailure) -> dict[str, object]:
    return {
        "status": "failed",
        "id": job.id,
        "message": failure.message,
        "track_id": job.request.track_id,
        "output": [],
        "meta": meta(job),
        "reason": failure.code,
    }


def _succeeded(job: Job, result: JobResult, links: list[str]) -> dict[str, object]:
    return {
        "status": "success",
        "id": job.id,
        "output": links,
        "generationTime": result.generation_time_s,
        "track_id": job.request.track_id,
        "nsfw_content_detected": any(result.nsfw),
    }
