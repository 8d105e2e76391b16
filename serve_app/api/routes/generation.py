"""Text to image, image to image, inpainting and ControlNets, on the paths of every family."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from serve_app.api.protocol import Service
from serve_app.api.replies import openapi, present
from serve_app.api.requests import body, control, idempotency, style
from serve_app.api.requests.build import build
from serve_app.api.requests.call import Call, base_url, read_call
from serve_app.api.requests.schemas import ControlNetBody, GenerationBody, parse
from serve_app.config import HttpConfig, JobsConfig
from serve_app.jobs.protocol import IDEMPOTENCY_KEY
from serve_app.types import Api, Job, Kind

__all__ = ["router"]

_T, _I, _P = Kind.TEXT2IMG, Kind.IMG2IMG, Kind.INPAINT
_C = None  # with ControlNets: which kind, the pictures of the call say
# /text2img is not documented; the PyPI client `modelslab` 0.2 with a V4 base URL posts to it.
_DREAMBOOTH: dict[str, Kind | None] = {"": _T, "/text2img": _T, "/img2img": _I, "/inpaint": _P}
_PATHS: dict[Api, tuple[str, dict[str, Kind | None]]] = {
    Api.V3: ("/api/v3/dreambooth", _DREAMBOOTH),
    Api.V4: ("/api/v4/dreambooth", _DREAMBOOTH),
    Api.V5: ("/api/v5", {"/controlnet": _C}),
    Api.V6: (
        "/api/v6/images",
        {"/text2img": _T, "/img2img": _I, "/inpaint": _P, "/controlnet": _C},
    ),
    Api.V7: ("/api/v7/images", {"/text-to-image": _T, "/image-to-image": _I, "/inpaint": _P}),
}

Endpoint = Callable[[Request], Awaitable[Response]]


def router(service: Service, http: HttpConfig, jobs: JobsConfig) -> APIRouter:
    """Make the routes of all generation calls."""

    style.table(http.styles)  # a bad file ends the start, not a call

    async def accept(request: Request, api: Api, kind: Kind | None) -> tuple[Job, float, bool]:
        """Accept a job; tell also how long to hold the call, and whether the job ends with it.

        The body goes when this is done; the call may be held for much longer.
        """
        if IDEMPOTENCY_KEY not in request.headers:  # else perhaps the repeat of an accepted call
            await service.check_room()
        fields, key_id = await read_call(request, service, http)
        asked, kind = _parse(fields, kind)
        repeat = await idempotency.of_call(request, fields)
        job = await service.admit(key_id, repeat)
        if job is None:
            call = Call(api, key_id, base_url(request, http), request.state.call_id)
            job = await service.submit(await build(asked, kind, call, service, http), repeat)
        hold_s = 0.0 if asked.instant_response else jobs.hold_s
        # With a webhook nobody has to stay for the result, and who repeats a call comes back.
        return job, hold_s, asked.webhook is None and repeat is None

    def endpoint(api: Api, kind: Kind | None) -> Endpoint:
        async def generate(request: Request) -> Response:
            job, hold_s, ends_with_call = await accept(request, api, kind)
            if hold_s > 0:
                job = await service.wait(job.id, hold_s, cancel_if_left=ends_with_call)
            return await present.generated(job, service, http)

        return generate

    routes = APIRouter()
    for api, (prefix, kinds) in _PATHS.items():
        for suffix, kind in kinds.items():
            routes.add_api_route(
                prefix + suffix,
                endpoint(api, kind),
                methods=["POST"],
                name=f"{api}{suffix or '/text2img'}".replace("/", "_"),
                tags=[f"{api.upper()} generation"],
                summary=openapi.SUMMARIES[kind or "controlnet"],
                openapi_extra=openapi.request_body(
                    GenerationBody if kind else ControlNetBody,
                    openapi.EXAMPLES[kind or "controlnet"],
                )
                | openapi.IDEMPOTENCY,
                responses=openapi.generation_responses(api),
            )
    return routes


def _parse(fields: body.Fields, kind: Kind | None) -> tuple[GenerationBody, Kind]:
    if kind is not None:
        return parse(GenerationBody, fields), kind
    asked = parse(ControlNetBody, fields)
    return asked, control.kind_of(asked)
