"""`/docs`: the calls with their fields, by Swagger UI out of a package. Nothing leaves the page."""

from importlib.resources import files

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import PlainTextResponse, Response

__all__ = ["router"]

_PACKAGE = "fastapi_swagger"  # the assets of Swagger UI, Apache-2.0
_MEDIA_TYPES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
_HEADERS = {"Cache-Control": "public, max-age=86400"}


def router(title: str) -> APIRouter:
    """Make the routes of the page; it reads `/openapi.json`."""
    assets = {name: (files(_PACKAGE) / "resources" / name).read_bytes() for name in _MEDIA_TYPES}
    routes = APIRouter(include_in_schema=False)

    @routes.get("/docs")
    async def page(request: Request) -> Response:
        root = request.scope.get("root_path", "").rstrip("/")
        return get_swagger_ui_html(
            openapi_url=f"{root}/openapi.json",
            title=title,
            swagger_js_url=f"{root}/docs/swagger-ui-bundle.js",
            swagger_css_url=f"{root}/docs/swagger-ui.css",
            swagger_favicon_url=f"{root}/docs/favicon-32x32.png",
        )

    @routes.get("/docs/{name}")
    async def asset(name: str) -> Response:
        if name not in assets:
            return PlainTextResponse("Not found", 404)
        return Response(assets[name], 200, _HEADERS, _MEDIA_TYPES[name])

    return routes
