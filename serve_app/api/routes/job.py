"""Fetch and cancel, on the paths of every family; each form answers for all jobs."""

import re
from collections.abc import Awaitable, Callable

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from serve_app import errors
from serve_app.api.protocol import Service
from serve_app.api.replies import openapi, present
from serve_app.api.requests.call import base_url, read_call
from serve_app.api.requests.schemas import FetchBody, field_message, parse
from serve_app.config import HttpConfig
from serve_app.jobs.number import MAX_ID
from serve_app.types import Api

__all__ = ["read_id", "router"]

_FETCH_PATHS = (
    (Api.V3, "/api/v3/fetch"),
    (Api.V3, "/api/v3/dreambooth/fetch"),
    (Api.V4, "/api/v4/dreambooth/fetch"),
    (Api.V6, "/api/v6/images/fetch"),
    (Api.V7, "/api/v7/images/fetch"),
)
_CANCEL_PATHS = (
    (Api.V3, "/api/v3/dreambooth/cancel"),
    (Api.V4, "/api/v4/dreambooth/cancel"),
    (Api.V6, "/api/v6/images/cancel"),
    (Api.V7, "/api/v7/images/cancel"),
)
_ID = re.compile(r"(\d{1,19})(?:\.0)?", re.ASCII)  # forms hold what was a float as "7.0"

Endpoint = Callable[[Request], Awaitable[Response]]


def router(service: Service, http: HttpConfig) -> APIRouter:
    """Make the routes of fetch and cancel."""

    async def read(request: Request) -> tuple[int, str]:
        fields, key_id = await read_call(request, service, http)
        in_path = request.path_params.get("request_id")
        given = in_path if in_path is not None else parse(FetchBody, fields).request_id
        return read_id(given), key_id

    async def fetch(request: Request) -> Response:
        job = await service.fetch(*await read(request))
        return await present.fetched(job, service, http, base_url(request, http))

    def cancel_on(api: Api) -> Endpoint:
        async def cancel(request: Request) -> Response:
            return present.cancelled(await service.cancel(*await read(request)), http, api)

        return cancel

    routes = APIRouter()
    for api, path in _FETCH_PATHS:
        _add(routes, api, path, fetch, "fetch")
    for api, path in _CANCEL_PATHS:
        _add(routes, api, path, cancel_on(api), "cancel")
    return routes


def read_id(text: str | None) -> int:
    """Read the id of a job.

    Raises:
        errors.InvalidRequest: there is none.
        errors.JobNotFound: what is no id cannot name a job.
    """
    if text is None:
        raise errors.InvalidRequest("request_id", field_message("request_id", "field is required"))
    found = _ID.fullmatch(text)
    if found is None or int(found[1]) > MAX_ID:
        raise errors.JobNotFound("no id")
    return int(found[1])


def _add(routes: APIRouter, api: Api, path: str, endpoint: Endpoint, action: str) -> None:
    """Serve an action with the id in the body and with the id in the path."""
    for suffix in ("", "/{request_id}"):
        routes.add_api_route(
            path + suffix,
            endpoint,
            methods=["POST"],
            name=f"{path.removeprefix('/api/').replace('/', '_')}{'_by_id' if suffix else ''}",
            tags=[f"{api.upper()} jobs"],
            summary=openapi.SUMMARIES[action],
            openapi_extra=openapi.request_body(FetchBody, openapi.EXAMPLES[action])
            | (openapi.PATH_ID if suffix else {}),
            responses=openapi.CALL_RESPONSES[action],
        )
