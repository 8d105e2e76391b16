"""`create_api`: the FastAPI app over a `Service`."""

from fastapi import FastAPI
from starlette.exceptions import HTTPException

from serve_app import __version__
from serve_app.api.middleware import middleware
from serve_app.api.protocol import Service
from serve_app.api.replies import wire
from serve_app.api.routes import (
    account,
    admin,
    canary,
    documentation,
    event,
    file,
    generation,
    health,
    helper,
    job,
    model,
    openai,
    overview,
    playground,
    reload,
)
from serve_app.api.routes.admin import Admin
from serve_app.api.routes.overview import Watch
from serve_app.config import EventsConfig, HttpConfig, JobsConfig

__all__ = ["create_api"]


def create_api(
    service: Service,
    http: HttpConfig,
    jobs: JobsConfig,
    events: EventsConfig | None = None,
    operator: Admin | None = None,
    watch: Watch | None = None,
) -> FastAPI:
    """Build the whole HTTP side; the schema of every call is at `/docs`.

    operator: who may change catalogue and keys; None: nobody by HTTP.
    watch: where operators see what the service does from; None: nowhere.
    """
    app = FastAPI(
        title="dreamserve",
        version=__version__,
        description="Self-hosted Community Models API V4: text2img, img2img, inpaint, fetch.",
        docs_url=None,  # `documentation` serves the page, with its assets
        redoc_url=None,
        redirect_slashes=False,
        middleware=middleware(http),
        exception_handlers={HTTPException: wire.on_http_exception},
    )
    events = events or EventsConfig()
    for routes in (
        generation.router(service, http, jobs),
        job.router(service, http),
        event.router(service, http, events),
        model.router(service, http),
        reload.router(service, http),
        helper.router(service, http),
        openai.router(service, http, events),
        health.router(service),
        file.router(service),
        documentation.router(app.title),
    ):
        app.include_router(routes)
    if operator is not None:
        app.include_router(admin.router(operator, http))
        app.include_router(canary.router(operator, http))
        app.include_router(account.router(operator, http))
        if watch is not None:
            app.include_router(overview.router(operator, watch))
    if http.playground:
        app.include_router(playground.router(service, http))
    return app
