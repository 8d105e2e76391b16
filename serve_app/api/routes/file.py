"""`/files/`: result files of a server that keeps them on its own disk."""

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from serve_app.api.protocol import Service

__all__ = ["router"]

_MEDIA_TYPES = ("image/png", "image/jpeg", "image/webp", "text/plain")
_HEADERS = {
    # Names are never reused; `temp` files go after a day, so caches must not outlive that by much.
    "Cache-Control": "public, max-age=3600, immutable",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "cross-origin",
}


def router(service: Service) -> APIRouter:
    """Make the route of result files."""
    routes = APIRouter(tags=["Files"])

    @routes.head("/files/{key:path}", include_in_schema=False)
    @routes.get("/files/{key:path}", summary="A picture, or its base64 text; 404 until it is ready")
    async def read_file(key: str) -> Response:
        file = await service.read_file(key)
        if file is None or file.media_type not in _MEDIA_TYPES:
            return PlainTextResponse("Not found", 404)
        return Response(file.data, 200, _HEADERS, file.media_type)

    return routes
