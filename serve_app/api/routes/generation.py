"""Text to image, image to image, inpainting, ControlNets, outpainting; all families' paths."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from serve_app.api.protocol import Service
from serve_app.api.replies import openapi, present
from serve_app.api.requests import body, control, idempotency, outpaint, style
from serve_app.api.requests.build import build
from serve_app.api.requests.call import call_of, read_call
from serve_app.api.requests.schemas import ControlNetBody, GenerationBody, OutpaintBody, parse
from serve_app.config import HttpConfig, JobsConfig
from serve_app.jobs.protocol import IDEMPOTENCY_KEY
from serve_app.telemetry import tracing
from serve_app.types import Api, Job, Kind

__all__ = ["router"]

_T, _I, _P = Kind.TEXT2IMG, Kind.IMG2IMG, Kind.INPAINT
_C = "controlnet"  # which kind, the pictures of the call say
_O = "outpaint"
_BODIES: dict[str, type[GenerationBody]] = {_C: ControlNetBody, _O: OutpaintBody}
# /text2img is not documented; the PyPI client `modelslab` 0.2 with a V4 base URL posts to it.
_DREAMBOOTH: dict[str, str] = {"": _T, "/text2img": _T, "/img2img": _I, "/inpaint": _P}
_PATHS: tuple[tuple[Api, str, dict[str, str]], ...] = (
    (Api.V3, "/api/v3/dreambooth", _DREAMBOOTH),
    (Api.V4, "/api/v4/dreambooth", _DREAMBOOTH),
    (Api.V5, "/api/v5", {"/controlnet": _C}),
    (
        Api.V6,
        "/api/v6/images",
        {"/text2img": _T, "/img2img": _I, "/inpaint": _P, "/controlnet": _C},
    ),
    (Api.V6, "/api/v6/image_editing", {"/outpaint": _O}),
    (Api.V7, "/api/v7/images", {"/text-to-image": _T, "/image-to-image": _I, "/inpaint": _P}),
)

Endpoint = Callable[[Request], Awaitable[Response]]


def router(service: Service, http: HttpConfig, jobs: JobsConfig) -> APIRouter:
    """Make the routes of all generation calls."""

    style.table(http.styles)  # a bad file ends the start, not a call

    async def accept(request: Request, api: Api, call: str) -> tuple[Job, float, bool]:
        """Accept a job; tell also how long to hold the call, and whether the job ends with it.

        The body goes when this is done; the call may be held for much longer.
        """
        if IDEMPOTENCY_KEY not in request.headers:  # else perhaps the repeat of an accepted call
            await service.check_room()
        fields, key_id = await read_call(request, service, http)
        asked, kind = _parse(fields, call)
        if isinstance(asked, OutpaintBody):
            model_id = outpaint.model_id(asked, service.catalogue, http)
            asked = asked.model_copy(update={"model_id": model_id})
        repeat = await idempotency.of_call(request, fields)
        job = await service.admit(key_id, repeat)
        if job is None:
            caller = call_of(request, api, key_id, http)
            job = await service.accept(await build(asked, kind, caller, service, http), repeat)
        hold_s = 0.0 if asked.instant_response else jobs.hold_s
        # With a webhook nobody has to stay for the result, and who repeats a call comes back.
        return job, hold_s, asked.webhook is None and repeat is None

    def endpoint(api: Api, call: str) -> Endpoint:
        async def generate(request: Request) -> Response:
            with tracing.span("accept") as marks:
                job, hold_s, ends_with_call = await accept(request, api, call)
                marks["dreamserve.job_id"] = job.id
            if hold_s > 0:
                job = await service.wait(job.id, hold_s, cancel_if_left=ends_with_call)
            return await present.generated(job, service, http)

        return generate

    routes = APIRouter()
    for api, prefix, calls in _PATHS:
        for suffix, call in calls.items():
            routes.add_api_route(
                prefix + suffix,
                endpoint(api, call),
                methods=["POST"],
                name=f"{api}{suffix or '/text2img'}".replace("/", "_"),
                tags=[f"{api.upper()} generation"],
                summary=openapi.SUMMARIES[call],
                openapi_extra=openapi.request_body(
                    _BODIES.get(call, GenerationBody), openapi.EXAMPLES[call]
                )
                | openapi.IDEMPOTENCY,
                responses=openapi.generation_responses(api),
            )
    return routes


def _parse(fields: body.Fields, call: str) -> tuple[GenerationBody, Kind]:
    asked = parse(_BODIES.get(call, GenerationBody), fields)
    if isinstance(asked, ControlNetBody):
        return asked, control.kind_of(asked)
    return asked, Kind.INPAINT if isinstance(asked, OutpaintBody) else Kind(call)
