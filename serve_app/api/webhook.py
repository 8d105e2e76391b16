"""The body that a webhook gets when its job is settled (api-reference 9)."""

import orjson

from serve_app.api import link
from serve_app.api.meta import meta
from serve_app.types import Job, JobFailure, JobResult

__all__ = ["body"]


def body(job: Job, outcome: JobResult | JobFailure) -> str:
    """Write the JSON of a settled job; receivers find status, id and track_id in every one."""
    base_url = job.request.base_url
    if isinstance(outcome, JobFailure):
        fields: dict[str, object] = {
            "status": "failed",
            "id": job.id,
            "message": outcome.message,
            "track_id": job.request.track_id,
            "output": [],
            "meta": meta(job),
            "reason": outcome.code,
        }
    else:
        fields = {
            "status": "success",
            "id": job.id,
            "output": [link.file_url(key, base_url) for key in outcome.keys],
            "generationTime": outcome.generation_time_s,
            "track_id": job.request.track_id,
            "nsfw_content_detected": any(outcome.nsfw),
            "meta": meta(job.model_copy(update={"result": outcome})),
        }
    return orjson.dumps(fields).decode()
