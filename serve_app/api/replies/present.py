"""A job to the reply of the call that shows it, with the HTTP status of the call's family."""

import math

from starlette.responses import Response

from serve_app import errors
from serve_app.api.protocol import Service
from serve_app.api.replies import link, wire
from serve_app.api.replies.bodies import (
    CancelledReply,
    ErrorReply,
    FailedReply,
    FetchedReply,
    ProcessingReply,
    Reply,
    RunningReply,
    SuccessReply,
)
from serve_app.api.replies.meta import linked_meta
from serve_app.config import HttpConfig
from serve_app.failure import to_failure
from serve_app.types import Api, Job, JobFailure, JobState

__all__ = [
    "TOO_LATE",
    "cancelled",
    "eta_s",
    "failure_of",
    "fetched",
    "fetched_reply",
    "generated",
]

TOO_LATE = "The request is already finished."
_FETCH_TIP = "Fetch the result with a POST to fetch_result after eta seconds."


async def generated(job: Job, service: Service, http: HttpConfig) -> Response:
    """Answer the call that began a job: success, failed, or processing after the hold."""
    request = job.request
    if job.state in (JobState.FAILED, JobState.CANCELLED):
        failure = failure_of(job)
        reply = wire.job_error(failure, request.api)
        return wire.response(reply, wire.status_of(failure.code, request.api, http))
    links = await _links(job, request.base_url, service)
    shown = await linked_meta(job, service.output_url, request.base_url)
    tip = str(request.echo.get("tip", ""))
    if job.result is None:
        return wire.response(
            ProcessingReply(
                tip=f"{_FETCH_TIP} {tip}".rstrip(),
                eta=eta_s(await service.eta_s(job), http),
                fetch_result=link.fetch_result(job),
                webhook_status=await service.webhook_status(job),
                id=job.id,
                output="" if request.spec.controlnets else [],  # as documented of each
                meta=shown,
                progress=round(job.progress, 4),
                queue_place=await service.queue_place(job),
                future_links=links,
            )
        )
    return wire.response(
        SuccessReply(
            generationTime=job.result.generation_time_s,
            id=job.id,
            output=links,
            proxy_links=links,
            nsfw_content_detected=any(job.result.nsfw),
            webhook_status=await service.webhook_status(job),
            meta=shown,
            tip=tip,
            future_links=links,
        )
    )


async def fetched(job: Job, service: Service, http: HttpConfig, base_url: str) -> Response:
    """Answer a fetch; HTTP 200 in every state, since the fetch itself went well."""
    return wire.response(await fetched_reply(job, service, http, base_url))


async def fetched_reply(job: Job, service: Service, http: HttpConfig, base_url: str) -> Reply:
    """Show a job in any state."""
    if job.state in (JobState.FAILED, JobState.CANCELLED):
        return _failed(failure_of(job))
    if job.result is None:
        return RunningReply(
            output=[] if http.running_fetch_output == "list" else "",
            eta=eta_s(await service.eta_s(job), http),
            progress=round(job.progress, 4),
            queue_place=await service.queue_place(job),
        )
    links = await _links(job, base_url, service)
    return FetchedReply(
        id=job.id,
        output=links,
        proxy_links=links,
        nsfw_content_detected=any(job.result.nsfw),
        webhook_status=await service.webhook_status(job),
    )


def cancelled(job: Job, http: HttpConfig, api: Api) -> Response:
    """Answer a cancel; too late for a job that is done."""
    if job.state is JobState.CANCELLED:
        return wire.response(CancelledReply(id=job.id))
    reply = ErrorReply(message=TOO_LATE, messege=TOO_LATE, reason="already_finished")
    return wire.response(reply, wire.status_of(errors.Cancelled.code, api, http))


def failure_of(job: Job) -> JobFailure:
    """Return why a job ended without a result."""
    return job.failure or to_failure(
        errors.Cancelled() if job.state is JobState.CANCELLED else errors.GenerationFailed()
    )


def _failed(failure: JobFailure) -> FailedReply:
    """Word a failure for pollers, which show `message` as text."""
    fields = failure.fields
    texts = [wire.name_field(name, text) for name, texts in fields.items() for text in texts]
    message = "; ".join(texts) or failure.message
    return FailedReply(message=message, messege=message, reason=failure.code)


async def _links(job: Job, base_url: str, service: Service) -> list[str]:
    return [await service.output_url(key, base_url) for key in job.request.output.keys]


def eta_s(seconds: float, http: HttpConfig) -> int:
    """Whole seconds until the next fetch: some clients insist on an integer, none on a fraction."""
    return min(http.max_eta_s, max(1, math.ceil(seconds)))
