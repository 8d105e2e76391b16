"""`/health/live` and `/health/ready`, for load balancers and for `make demo`."""

import orjson
from fastapi import APIRouter
from starlette.responses import Response

from serve_app.api.protocol import Service

__all__ = ["router"]


def router(service: Service) -> APIRouter:
    """Make the health routes."""
    routes = APIRouter(prefix="/health", tags=["Health"])

    @routes.get("/live", summary="The process answers")
    async def live() -> Response:
        return _json({"status": "ok"}, 200)

    @routes.get(
        "/ready",
        summary="Every model of the deployment can answer; 503 while one cannot",
    )
    async def ready() -> Response:
        found = await service.readiness()
        status = "ready" if found.is_ready else "not_ready"
        told: dict[str, object] = {"status": status, "models": found.models, "parts": found.parts}
        return _json(told, 200 if found.is_ready else 503)

    return routes


def _json(content: dict[str, object], status: int) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")
