"""Pure ASGI middleware, and the order in which a call passes it.

1. CORS, outermost, so that a browser can read every answer, also the refusals of the others.
2. `AccessLog`: gives the call its id and writes one line when it is answered; sees all outcomes.
3. `PlainHeaders`: security headers on every answer.
4. `Arrival`: limits headers and bodies, and no answer leaves an unread body behind.
5. `Fallback`: turns every error of the layers below into the API's shape; nothing passes it.
6. `NoTrailingSlash`: one SDK appends it; a redirect would lose the POST.
"""

import re
import time
import traceback
import uuid
from contextlib import AbstractContextManager, nullcontext

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app import errors
from serve_app.api.replies import wire
from serve_app.api.requests.arrival import Arrival
from serve_app.config import HttpConfig
from serve_app.telemetry import tracing

__all__ = ["CALL_ID_HEADER", "middleware"]

CALL_ID_HEADER = "x-request-id"
_GOOD_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_MAX_FRAMES = 8  # the innermost; above are the framework's
_PLAIN_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",  # files set their own
}

_log = structlog.get_logger()


def middleware(http: HttpConfig) -> list[Middleware]:
    """List the middleware, outermost first; the module says why in this order."""
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=list(http.cors_origins),
            allow_methods=["GET", "HEAD", "POST", "OPTIONS"],
            allow_headers=["*"],
            expose_headers=[CALL_ID_HEADER, "Retry-After"],
            max_age=86_400,
        ),
        Middleware(AccessLog),
        Middleware(PlainHeaders),
        Middleware(Arrival, http=http),
        Middleware(Fallback, http=http),
        Middleware(NoTrailingSlash),
    ]


class AccessLog:
    """Gives each call an id; logs method, route, status and time, never a body or a query."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get(CALL_ID_HEADER, "")
        is_good = _GOOD_ID.fullmatch(given) is not None
        call_id = given if is_good else uuid.uuid4().hex
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if not is_good:  # Serve's proxy hands in an id, and puts that on the answer itself
                    MutableHeaders(scope=message)[CALL_ID_HEADER] = call_id
            await send(message)

        begun = time.perf_counter()
        caller = tracing.carried(headers.get("traceparent", ""))
        with (
            structlog.contextvars.bound_contextvars(call_id=call_id, **caller),
            _span(scope) as marks,
        ):
            known = {"call_id": call_id, "traceparent": tracing.current()}
            scope["state"] = {**scope.get("state", {}), **known}
            try:
                await self._app(scope, receive, send_with_id)
            finally:  # also when the client left: status 0
                marks.update(_answered(scope, status))
                _log.info(
                    "http_request",
                    method=scope["method"],
                    route=wire.route(scope),
                    status=status,
                    duration_ms=round((time.perf_counter() - begun) * 1000, 1),
                )


def _span(scope: Scope) -> AbstractContextManager[tracing.Marks]:
    """Surround a call; load balancers ask every few seconds, and have no part in any trace."""
    if scope["path"].startswith("/health/"):
        return nullcontext({})
    return tracing.span("call", "server")


def _answered(scope: Scope, status: int) -> dict[str, str | int]:
    """Name what a span says of a call, by OpenTelemetry's conventions."""
    marks: dict[str, str | int] = {"http.request.method": scope["method"]}
    marks |= {"http.route": wire.route(scope), "http.response.status_code": status}
    return marks | ({"error.type": str(status)} if status >= 500 else {})


class PlainHeaders:
    """Adds the headers that an answer does not set itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _PLAIN_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class Fallback:
    """Answers errors in the shape of the path's family; the unexpected ones say nothing."""

    def __init__(self, app: ASGIApp, http: HttpConfig) -> None:
        self._app = app
        self._http = http

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def watched_send(message: Message) -> None:
            nonlocal has_begun
            has_begun = has_begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except ClientDisconnect:
            return  # while it sent its body: nobody is left to answer
        except Exception as exc:
            if scope["type"] != "http" or has_begun:
                raise
            answer = wire.respond(_ours(exc), scope, self._http)
            await answer(scope, receive, send)


def _ours(exc: Exception) -> errors.DreamserveError:
    """Find our error in this one; log what is the server's own fault, without its text.

    The text of a foreign error may quote the request; the frames hold code only.
    """
    error = wire.find(exc)
    if error is None:
        frames = "".join(traceback.format_tb(exc.__traceback__)[-_MAX_FRAMES:])
        _log.error("unexpected_error", error=type(exc).__name__, frames=frames)
        return errors.DreamserveError()
    if error.status >= 500:
        _log.warning("call_failed", code=error.code, detail=str(error))
    return error


class NoTrailingSlash:
    """Lets `/api/v6/images/text2img/` reach the route without the slash."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_call = scope["type"] == "http" and wire.family(scope) is not None
        if is_call and scope["path"].endswith("/"):
            scope["path"] = scope["path"].rstrip("/")  # in place: AccessLog reads the route
        await self._app(scope, receive, send)
