"""What the catalogue says: model_list, schedulers_list, and categories not served."""

from collections.abc import Awaitable, Callable
from typing import Literal

import orjson
from fastapi import APIRouter
from pydantic import JsonValue
from starlette.requests import Request
from starlette.responses import Response

from serve_app import errors
from serve_app.api.protocol import Service
from serve_app.api.replies import openapi
from serve_app.api.replies.bodies import ModelRow, SchedulersReply
from serve_app.api.requests.body import Fields
from serve_app.api.requests.call import read_call
from serve_app.api.requests.scheduler import SCHEDULERS
from serve_app.api.requests.schemas import KeyBody
from serve_app.config import HttpConfig
from serve_app.models import AddOn, ModelEntry

__all__ = ["router"]

_LIST_PATHS = ("/api/v3/dreambooth/model_list", "/api/v4/dreambooth/model_list")
_UNSERVED = {
    "/api/v4/dreambooth/text2video": "text2video",
}
_CATEGORIES = {  # spelt as clients know
    "lora": "lora",
    "vae": "vae",
    "embedding": "embeddings",
    "ip_adapter": "ip_adapter",
    "controlnet": "controlnet",
    "upscaler": "upscaler",
}
_NUM_LISTED = 17  # the documented reply leaves out the last one, LCMScheduler

Endpoint = Callable[[Request], Awaitable[Response]]


def router(service: Service, http: HttpConfig) -> APIRouter:
    """Make the routes about models."""

    async def read(request: Request) -> Fields:
        fields, _key_id = await read_call(request, service, http)
        return fields

    async def list_models(request: Request) -> Response:
        await read(request)
        ready = (await service.readiness()).models
        rows = [_row(entry, ready.get(entry.id, False)) for entry in service.catalogue]
        for add_on in service.catalogue.add_ons:
            is_ready = any(is_up and add_on.fits(model_id) for model_id, is_up in ready.items())
            rows.append(_add_on_row(add_on, is_ready))
        return _json([row.model_dump() for row in rows])

    async def list_schedulers(request: Request) -> Response:
        await read(request)
        return _json(SchedulersReply(schedulers=list(SCHEDULERS[:_NUM_LISTED])).model_dump())

    routes = APIRouter(tags=["Models"])
    for path in _LIST_PATHS:
        _add(routes, path, list_models, "model_list")
    _add(routes, "/api/v1/enterprise/schedulers_list", list_schedulers, "schedulers_list")
    for path, category in _UNSERVED.items():
        _add(routes, path, _refuse(read, category), "unserved")
    return routes


def _refuse(read: Callable[[Request], Awaitable[Fields]], category: str) -> Endpoint:
    async def refuse(request: Request) -> Response:
        await read(request)
        raise errors.NotServed(f"The model category {category} is not served here.")

    return refuse


def _row(entry: ModelEntry, is_ready: bool) -> ModelRow:
    return ModelRow(
        model_id=entry.id,
        status=_status(is_ready),
        created_at=None,
        instance_prompt=entry.instance_prompt,
        model_name=entry.name or entry.id,
        description=entry.description,
        screenshots="",
        model_category=entry.category,
        kinds=list(entry.kinds),
        native_size_px=entry.native_size_px,
        defaults=entry.defaults.model_dump(mode="json"),
    )


def _add_on_row(add_on: AddOn, is_ready: bool) -> ModelRow:
    return ModelRow(
        model_id=add_on.id,
        status=_status(is_ready),
        created_at=None,
        instance_prompt=add_on.trigger,
        model_name=add_on.name or add_on.id,
        description=add_on.description,
        screenshots="",
        model_category=_CATEGORIES[add_on.type],
        models=list(add_on.models),
        control=list(add_on.control),
    )


def _status(is_ready: bool) -> Literal["model_ready", "model_loading"]:
    return "model_ready" if is_ready else "model_loading"


def _json(content: JsonValue) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")


def _add(routes: APIRouter, path: str, endpoint: Endpoint, action: str) -> None:
    routes.add_api_route(
        path,
        endpoint,
        methods=["POST"],
        name=path.removeprefix("/api/").replace("/", "_"),
        summary=openapi.SUMMARIES[action],
        openapi_extra=openapi.request_body(KeyBody, openapi.EXAMPLES[action]),
        responses=openapi.CALL_RESPONSES[action],
    )
