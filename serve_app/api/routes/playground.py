"""`/`, `/status` and `/playground/`: the pages for browsers, which use the public API only."""

from urllib.parse import urlsplit

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from serve_app import errors
from serve_app.api.protocol import Service
from serve_app.api.requests.call import base_url
from serve_app.config import HttpConfig
from serve_app.playground import PageFile, load

__all__ = ["router"]

_PAGES = {"/": "index.html", "/status": "status.html"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob: {files}; connect-src 'self' {files}; font-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {"Cache-Control": "no-cache", "Cross-Origin-Opener-Policy": "same-origin"}
_PROBE = "generations/playground.png"  # no file; its link tells where files are served


def router(service: Service, http: HttpConfig) -> APIRouter:
    """Make the routes of the pages and of what they load."""
    files = load()

    async def show(request: Request) -> Response:
        origin = await _files_origin(service, base_url(request, http))
        headers = {"Content-Security-Policy": _POLICY.format(files=origin).replace(" ;", ";")}
        return _answer(request, files[_PAGES[request.scope["route"].path]], headers)

    async def send(request: Request, name: str) -> Response:
        file = files.get(name)
        if file is None:
            raise HTTPException(404)
        return _answer(request, file, {})

    routes = APIRouter(include_in_schema=False)
    for path in _PAGES:
        routes.add_api_route(path, show, methods=["GET", "HEAD"])
    routes.add_api_route("/playground/{name}", send, methods=["GET", "HEAD"])
    return routes


async def _files_origin(service: Service, base: str) -> str:
    """Scheme and host of the links to results; "" where the store cannot make one now."""
    try:
        url = urlsplit(await service.output_url(_PROBE, base))
    except errors.StorageUnavailable:
        return ""
    return f"{url.scheme}://{url.netloc}"


def _answer(request: Request, file: PageFile, headers: dict[str, str]) -> Response:
    headers = {**_HEADERS, **headers, "ETag": file.tag}
    if file.tag in request.headers.get("if-none-match", ""):
        return Response(None, 304, headers)
    return Response(file.data, 200, headers, file.media_type)
