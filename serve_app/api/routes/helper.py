"""The helper calls beside generation: about single pictures, files of a job, and the load.

Source: API pages "Crop base64 image", "Base64 to URL", "NSFW image check", "Delete image" and
"System load", 2023 to 2025.
"""

import secrets
from collections.abc import Awaitable, Callable

import orjson
from fastapi import APIRouter
from pydantic import AliasChoices, Field
from starlette.requests import Request
from starlette.responses import Response

from serve_app import errors
from serve_app.api.protocol import Service
from serve_app.api.replies import openapi, wire
from serve_app.api.replies.bodies import CheckReply, CropReply, DeletedReply, LoadReply, UrlReply
from serve_app.api.replies.link import shown
from serve_app.api.requests.call import base_url, read_call
from serve_app.api.requests.schemas import (
    FetchBody,
    Flag,
    Id,
    Image,
    KeyBody,
    Number,
    WireModel,
    field_message,
    parse,
)
from serve_app.api.routes.job import read_id
from serve_app.config import HttpConfig
from serve_app.images.source import InputPicture

__all__ = ["router"]

_FIRST_UPLOAD_ID = 2**52  # no job gets there, and JavaScript holds every integer below 2**53
_THRESHOLD = 0.5  # documented default; the checker's own thresholds are part of its weights

Endpoint = Callable[[Request], Awaitable[Response]]


class CropBody(WireModel):
    """Crop base64 image."""

    image: Image = Field(None, description="Base64 or data URI, at most 5 MiB.")
    crop: Flag = Field(False, description="true: keep the square in the middle.")


class UrlBody(WireModel):
    """Base64 to URL."""

    base64_string: Image = Field(
        None,
        validation_alias=AliasChoices("base64_string", "init_image"),
        description="Base64 or data URI, at most 5 MiB; init_image is another name for it.",
    )


class DeleteBody(FetchBody):
    """Delete image."""

    type: Id = Field(None, description="image, the only kind of output.")


class CheckBody(WireModel):
    """NSFW image check."""

    init_image: Image = Field(None, description="URL, base64 or data URI.")
    threshold: Number = Field(None, description="0.5, the only value that is served.")


def router(service: Service, http: HttpConfig) -> APIRouter:
    """Make the routes of the helper calls."""

    async def crop(request: Request) -> Response:
        fields, key_id = await read_call(request, service, http)
        asked = parse(CropBody, fields)
        image = _required("image", asked.image)
        key = await service.publish("image", image, key_id, crop=asked.crop)
        link = await service.output_url(key, base_url(request, http))
        return wire.response(CropReply(link=link, request_id=_upload_id()))

    async def to_url(request: Request) -> Response:
        fields, key_id = await read_call(request, service, http)
        image = _required("base64_string", parse(UrlBody, fields).base64_string)
        key = await service.publish("base64_string", image, key_id)
        link = await service.output_url(key, base_url(request, http))
        upload_id = _upload_id()
        return wire.response(UrlReply(id=upload_id, request_id=upload_id, output=[link]))

    async def check(request: Request) -> Response:
        fields, key_id = await read_call(request, service, http)
        asked = parse(CheckBody, fields)
        image = _required("init_image", asked.init_image)
        if asked.threshold not in (None, _THRESHOLD):
            raise errors.InvalidRequest("threshold", "Only a threshold of 0.5 is served here.")
        is_flagged = await service.is_nsfw("init_image", image, key_id)
        reply = CheckReply(images=shown(image), has_nsfw_concept=[is_flagged])
        return Response(orjson.dumps(reply.model_dump()), media_type="application/json")

    async def delete(request: Request) -> Response:
        fields, key_id = await read_call(request, service, http)
        asked = parse(DeleteBody, fields)
        if asked.type not in (None, "image"):
            raise errors.InvalidRequest(
                "type", "The type must be image, nothing else is made here."
            )
        await service.delete(read_id(asked.request_id), key_id)
        return wire.response(DeletedReply())

    async def load(request: Request) -> Response:
        await read_call(request, service, http)
        now = await service.load()
        return wire.response(LoadReply(queue_num=now.num_open, queue_time=round(now.wait_s, 2)))

    routes = APIRouter(tags=["Helpers"])
    _add(routes, "/api/v3/base64_crop", crop, CropBody)
    _add(routes, "/api/v6/base64_to_url", to_url, UrlBody)
    _add(routes, "/api/v6/image_editing/base64_to_url", to_url, UrlBody)
    _add(routes, "/api/v3/nsfw_image_check", check, CheckBody)
    _add(routes, "/api/v1/enterprise/nsfw_image_check", check, CheckBody)
    _add(routes, "/api/v3/delete_image", delete, DeleteBody)
    _add(routes, "/api/v3/system_load", load, KeyBody)
    return routes


def _required(field: str, value: InputPicture | None) -> InputPicture:
    if not value:
        raise errors.InvalidFields({field: [field_message(field, "field is required")]})
    return value


def _upload_id() -> int:
    """Draw an id for a reply that has to have one; it names nothing that could be fetched."""
    return _FIRST_UPLOAD_ID + secrets.randbelow(_FIRST_UPLOAD_ID)


def _add(routes: APIRouter, path: str, endpoint: Endpoint, model: type[WireModel]) -> None:
    action = path.rpartition("/")[2]
    routes.add_api_route(
        path,
        endpoint,
        methods=["POST"],
        name=path.removeprefix("/api/").replace("/", "_"),
        summary=openapi.SUMMARIES[action],
        openapi_extra=openapi.request_body(model, openapi.EXAMPLES[action]),
        responses=openapi.CALL_RESPONSES[action],
    )
