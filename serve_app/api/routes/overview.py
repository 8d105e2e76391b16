"""`GET /admin/overview`: the numbers of `dreamserve top`, and the jobs that failed last.

For holders of the operator's key, as `/admin/models`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from serve_app.api.replies.present import failure_of
from serve_app.api.routes.admin import Admin
from serve_app.telemetry import scrape
from serve_app.types import Job

__all__ = ["Watch", "router"]

_NUM_FAILURES = 20


@dataclass(frozen=True, slots=True)
class Watch:
    """Where the numbers come from. find_pages: addresses of the metrics pages of all nodes."""

    find_pages: Callable[[], Sequence[str]]
    last_failed: Callable[[int], Awaitable[Sequence[Job]]]


def router(admin: Admin, watch: Watch) -> APIRouter:
    """Make the route."""
    routes = APIRouter(tags=["Administration"])

    @routes.get("/admin/overview", summary="What the service does right now")
    async def overview(request: Request) -> Response:
        await admin.check(request)
        seen, silent = await asyncio.to_thread(lambda: scrape.look(watch.find_pages()))
        failed = await watch.last_failed(_NUM_FAILURES)
        content = {
            **asdict(seen),
            "pictures_per_s": seen.pictures_per_s,
            "open_jobs": seen.open_jobs,
            "silent_nodes": silent,
            "failures": [_row(job) for job in failed],
        }
        return Response(orjson.dumps(content), media_type="application/json")

    return routes


def _row(job: Job) -> dict[str, object]:
    failure = failure_of(job)
    return {
        "id": job.id,
        "finished_at": job.finished_at,
        "model_id": job.request.spec.model_id,
        "reason": failure.code,
        "message": failure.message,
    }
