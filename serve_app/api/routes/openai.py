"""OpenAI's calls on the same jobs: `/v1/images/generations`, `/v1/images/edits`, `/v1/models`.

Their clients wait for the pictures: the call is held until the job has ended, and a client that
leaves ends its job.
"""

import orjson
from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from serve_app import errors
from serve_app.api.protocol import Service
from serve_app.api.replies import openai, openapi, pictures, wire
from serve_app.api.replies.budget import Budget
from serve_app.api.replies.picture_events import PictureCall, pieces, status_of
from serve_app.api.replies.stream import EventStream, PieceStream
from serve_app.api.requests import idempotency
from serve_app.api.requests.build import build
from serve_app.api.requests.call import call_of, read_call, read_key
from serve_app.api.requests.openai import EditBody, ImagesBody, kind_of, read, translate
from serve_app.config import EventsConfig, HttpConfig
from serve_app.jobs.moment import Mark
from serve_app.jobs.protocol import IDEMPOTENCY_KEY
from serve_app.telemetry import tracing
from serve_app.types import Api, Job, JobRequest

__all__ = ["router"]


def router(service: Service, http: HttpConfig, events: EventsConfig) -> APIRouter:
    """Make the routes."""
    calls = _ImageCalls(service, http, events)
    routes = APIRouter(tags=["OpenAI"])
    for path, endpoint, model in (
        ("/v1/images/generations", calls.generate, ImagesBody),
        ("/v1/images/edits", calls.edit, EditBody),
    ):
        routes.add_api_route(
            path,
            endpoint,
            methods=["POST"],
            name=path.removeprefix("/").replace("/", "_"),
            summary=openapi.SUMMARIES[path],
            openapi_extra=openapi.request_body(model, openapi.EXAMPLES[path]),
            responses=openapi.CALL_RESPONSES[path],
        )

    @routes.get("/v1/models", summary="Served models")
    async def list_models(request: Request) -> Response:
        await service.identify(read_key({}, request.headers))
        data = [openai.ServedModelRow(id=entry.id) for entry in service.catalogue]
        return _json(openai.ModelsReply(data=data))

    @routes.get("/v1/models/{model}", summary="One of them")
    async def show_model(request: Request) -> Response:
        await service.identify(read_key({}, request.headers))
        model_id = request.path_params["model"]
        known = await service.catalogue_knowing(model_id)
        if model_id not in {entry.id for entry in known}:
            raise errors.ModelNotFound(model_id)
        return _json(openai.ServedModelRow(id=model_id))

    return routes


class _ImageCalls:
    """The two calls that make pictures."""

    def __init__(self, service: Service, http: HttpConfig, events: EventsConfig) -> None:
        self._service = service
        self._http = http
        self._events = events
        self._budget = Budget(http.max_reply_bytes, http.openai_wait_s)

    async def generate(self, request: Request) -> Response:
        asked, job = await self._accept(request, is_edit=False)
        return await self._answer(request, asked, job)

    async def edit(self, request: Request) -> Response:
        asked, job = await self._accept(request, is_edit=True)
        return await self._answer(request, asked, job)

    async def _accept(self, request: Request, *, is_edit: bool) -> tuple[ImagesBody, Job]:
        with tracing.span("accept") as marks:
            asked, job = await self._accepted(request, is_edit=is_edit)
            marks["dreamserve.job_id"] = job.id
        return asked, job

    async def _accepted(self, request: Request, *, is_edit: bool) -> tuple[ImagesBody, Job]:
        """Accept a job; the body goes when this is done."""
        service = self._service
        if IDEMPOTENCY_KEY not in request.headers:
            await service.check_room()
        fields, key_id = await read_call(request, service, self._http)
        asked = read(fields, is_edit=is_edit)
        repeat = await idempotency.of_call(request, fields)
        job = await service.admit(key_id, repeat)
        if job is None:
            catalogue = await service.catalogue_knowing(asked.model or "")
            body = translate(asked, fields, catalogue, has_checker=service.has_checker)
            call = call_of(request, Api.OPENAI, key_id, self._http)
            ours = await build(body, kind_of(asked, body), call, service, self._http)
            job = await service.accept(_with_output(ours, asked, service), repeat)
        return asked, job

    async def _answer(self, request: Request, asked: ImagesBody, job: Job) -> Response:
        ends_with_call = job.request.webhook is None and IDEMPOTENCY_KEY not in request.headers
        if asked.stream:
            return await self._stream(asked, job, ends_with_call=ends_with_call)
        wait_s = self._http.openai_wait_s
        job = await self._service.wait(job.id, wait_s, cancel_if_left=ends_with_call)
        if not job.state.is_final:
            if ends_with_call:
                await self._service.cancel(job.id, job.request.key_id)
            raise errors.Overloaded()
        if failure := pictures.failure_of_call(job):
            status, headers = status_of(failure, self._http), wire.retry_headers(failure.code)
            return openai.refusal(failure, status, headers)
        reply = pictures.reply_pieces(job, asked, self._service, self._budget)
        return PieceStream(reply, self._events.send_timeout_s)

    async def _stream(self, asked: ImagesBody, job: Job, *, ends_with_call: bool) -> Response:
        moments = self._service.follow(job, Mark(), has_previews=bool(asked.partial_images))
        try:
            first = await anext(moments)
        except BaseException:  # refused, or the client left: another call may wait for the job
            if ends_with_call:
                await self._service.cancel(job.id, job.request.key_id)
            raise
        name = "image_edit" if isinstance(asked, EditBody) else "image_generation"
        call = PictureCall(name, asked, job, self._service, self._http, self._budget)
        events = pieces(call, first, moments, ends_with_call=ends_with_call)
        return EventStream(events, self._events.send_timeout_s)


def _with_output(request: JobRequest, asked: ImagesBody, service: Service) -> JobRequest:
    """Ask for results in the wanted format, and for the mask to be read as OpenAI's."""
    temp, samples = request.output.temp, request.spec.samples
    quality = 100 if asked.output_compression is None else asked.output_compression
    output = service.reserve_output(samples, False, temp, asked.form, quality)
    mask = request.mask_image
    if mask is not None and isinstance(asked, EditBody) and asked.mask is not None:
        mask = mask.model_copy(update={"is_alpha_mask": True})
    return request.model_copy(update={"output": output, "mask_image": mask})


def _json(reply: BaseModel) -> Response:
    content = orjson.dumps(reply.model_dump(exclude_none=True))
    return Response(content, media_type="application/json")
