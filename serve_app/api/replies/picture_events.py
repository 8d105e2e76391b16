"""A call of OpenAI's as events: previews as they come, the pictures at the end."""

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import partial

from pydantic import JsonValue

from serve_app import errors
from serve_app.api.protocol import Service
from serve_app.api.replies import openai, pictures, wire
from serve_app.api.replies.budget import Budget
from serve_app.api.replies.stream import HEARTBEAT, event
from serve_app.api.requests.openai import ImagesBody
from serve_app.config import HttpConfig
from serve_app.failure import to_failure
from serve_app.jobs.moment import EndMoment, Moment, PreviewMoment
from serve_app.types import Api, Job, JobFailure

__all__ = ["PictureCall", "pieces", "status_of"]


@dataclass(frozen=True, slots=True)
class PictureCall:
    """A call that is answered by events. name: what those begin with."""

    name: str
    asked: ImagesBody
    job: Job
    service: Service
    http: HttpConfig
    budget: Budget

    def event(self, end: str, data: dict[str, JsonValue]) -> bytes:
        """Write an event of this call."""
        name = f"{self.name}.{end}"
        return event(name, {"type": name, **data})


async def pieces(
    call: PictureCall,
    first: Moment | None,
    moments: AsyncGenerator[Moment | None, None],
    *,
    ends_with_call: bool,
) -> AsyncGenerator[bytes, None]:
    """Write previews as they come and the pictures at the end; who leaves before ends the job."""
    job, num_told, wanted = call.job, 0, call.asked.partial_images or 0
    try:
        yield HEARTBEAT  # a stream begins at once
        async with contextlib.aclosing(moments):
            moment: Moment | None = first
            while not isinstance(moment, EndMoment):
                if isinstance(moment, PreviewMoment) and _is_due(moment, num_told, wanted):
                    shown = pictures.partial(job, call.asked, moment.image, num_told)
                    yield call.event("partial_image", shown)
                    num_told += 1
                elif moment is None:
                    yield HEARTBEAT
                moment = await anext(moments)
            job = moment.job
        async with contextlib.aclosing(_ends(call, job)) as last:
            async for piece in last:
                yield piece
    except (errors.DreamserveError, StopAsyncIteration) as exc:
        error = exc if isinstance(exc, errors.DreamserveError) else errors.Overloaded()
        yield _failed(to_failure(error), call.http)
    finally:
        if ends_with_call and not job.state.is_final:
            await call.service.cancel(job.id, job.request.key_id)


async def _ends(call: PictureCall, job: Job) -> AsyncGenerator[bytes, None]:
    if failure := pictures.failure_of_call(job):
        yield _failed(failure, call.http)
        return
    for key in job.request.output.keys:
        write = partial(call.event, "completed")
        last = pictures.completed_pieces(job, call.asked, key, call.service, call.budget, write)
        async with contextlib.aclosing(last):
            async for piece in last:
                yield piece


def _is_due(moment: PreviewMoment, num_told: int, wanted: int) -> bool:
    """Spread the previews over the steps; the finished picture comes after the last of them."""
    return num_told < wanted and moment.step * (wanted + 1) >= moment.steps * (num_told + 1)


def _failed(failure: JobFailure, http: HttpConfig) -> bytes:
    return event(
        "error", {"type": "error", "error": openai.fault(failure, status_of(failure, http))}
    )


def status_of(failure: JobFailure, http: HttpConfig) -> int:
    """HTTP status of a failure in a call of OpenAI's."""
    return 400 if failure.code == openai.FLAGGED else wire.status_of(failure.code, Api.OPENAI, http)
