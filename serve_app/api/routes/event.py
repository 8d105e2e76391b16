"""Events of a job as a stream, and the tokens that open one where no header can be sent."""

import base64
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable

from fastapi import APIRouter
from pydantic import JsonValue
from starlette.requests import Request
from starlette.responses import Response

from serve_app import errors
from serve_app.api.protocol import Service
from serve_app.api.replies import openapi, present, wire
from serve_app.api.replies.bodies import TokenReply
from serve_app.api.replies.stream import HEARTBEAT, EventStream, event
from serve_app.api.requests.call import base_url, read_call, read_key
from serve_app.api.requests.schemas import KeyBody
from serve_app.api.routes.job import read_id
from serve_app.config import EventsConfig, HttpConfig
from serve_app.jobs.moment import (
    EndMoment,
    Mark,
    Moment,
    PreviewMoment,
    QueuedMoment,
    StartedMoment,
    StepMoment,
)
from serve_app.types import JobState

__all__ = ["preview_uri", "router"]

_PATH = "/api/v4/dreambooth/events/{request_id}"
_RETRY = b"retry: 2000\n\n"  # milliseconds until a browser comes back


def preview_uri(image: bytes) -> str:
    """Return a JPEG as a data URI."""
    return f"data:image/jpeg;base64,{base64.b64encode(image).decode()}"


def router(service: Service, http: HttpConfig, events: EventsConfig) -> APIRouter:
    """Make the routes of event streams."""

    async def make_token(request: Request) -> Response:
        _fields, key_id = await read_call(request, service, http)
        job = await service.fetch(read_id(request.path_params["request_id"]), key_id)
        token = await service.issue_token(job.id, key_id)
        return wire.response(TokenReply(token=token, expires_s=int(events.token_ttl_s)))

    async def stream(request: Request) -> Response:
        job_id = read_id(request.path_params["request_id"])
        token = request.query_params.get("token")
        if token is None:
            key_id = await service.identify(read_key({}, request.headers))
        else:
            key_id = await service.read_token(job_id, token)
        job = await service.fetch(job_id, key_id)
        mark = Mark.parse(request.headers.get("last-event-id", ""))
        if job.state.is_final and mark.has_ended:
            return Response(status_code=204)  # nothing is to come: browsers stop asking
        has_previews = request.query_params.get("previews") != "no"
        moments = service.follow(job, mark, has_previews=has_previews)
        first = await anext(moments)  # a refusal is an answer of its own
        base = base_url(request, http)

        async def write(moment: Moment) -> bytes:
            if isinstance(moment, EndMoment):
                reply = await present.fetched_reply(moment.job, service, http, base)
                name = "done" if moment.job.state is JobState.SUCCESS else "failed"
                return event(name, reply.model_dump(), str(moment.mark))
            return _written(moment, http)

        async def is_live() -> bool:
            return await service.is_live(key_id)

        pieces = _pieces(first, moments, write, is_live, events.max_stream_bytes)
        return EventStream(pieces, events.send_timeout_s)

    routes = APIRouter(tags=["V4 jobs"])
    routes.add_api_route(
        _PATH,
        make_token,
        methods=["POST"],
        name="v4_events_token",
        summary=openapi.SUMMARIES["events_token"],
        openapi_extra=openapi.request_body(KeyBody, openapi.EXAMPLES["events_token"])
        | openapi.PATH_ID,
        responses=openapi.CALL_RESPONSES["events_token"],
    )
    routes.add_api_route(
        _PATH,
        stream,
        methods=["GET"],
        name="v4_events",
        summary=openapi.SUMMARIES["events"],
        openapi_extra=openapi.EVENTS,
        responses=openapi.CALL_RESPONSES["events"],
    )
    return routes


async def _pieces(
    first: Moment | None,
    moments: AsyncGenerator[Moment | None, None],
    write: Callable[[Moment], Awaitable[bytes]],
    is_live: Callable[[], Awaitable[bool]],
    max_bytes: int,
) -> AsyncGenerator[bytes, None]:
    """Write all moments; what goes wrong ends the stream, and the client comes back to hear it."""
    yield _RETRY
    moment, left = first, max_bytes
    async with contextlib.aclosing(moments):
        with contextlib.suppress(StopAsyncIteration, errors.DreamserveError):
            while left > 0 and (moment is not None or await is_live()):
                piece = HEARTBEAT if moment is None else await write(moment)
                left -= len(piece)
                yield piece
                moment = await anext(moments)


def _written(moment: Moment, http: HttpConfig) -> bytes:
    mark = str(moment.mark)
    match moment:
        case QueuedMoment():
            queued: dict[str, JsonValue] = {
                "place": moment.place,
                "eta": present.eta_s(moment.eta_s, http),
            }
            return event("queued", queued, mark)
        case StartedMoment():
            return event("started", {}, mark)
        case StepMoment():
            return event("progress", {"step": moment.step, "steps": moment.steps}, mark)
        case PreviewMoment():
            shown: dict[str, JsonValue] = {
                "image": preview_uri(moment.image),
                "step": moment.step,
                "steps": moment.steps,
            }
            return event("preview", shown, mark)
    raise AssertionError("all other moments are listed above")
