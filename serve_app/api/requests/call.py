"""`Call`: what is known of an HTTP call besides its fields."""

import re
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.requests import Request

from serve_app.api.protocol import Service
from serve_app.api.requests import body, coerce
from serve_app.api.requests.body import Fields
from serve_app.config import HttpConfig
from serve_app.types import Api

__all__ = ["Call", "base_url", "call_of", "read_call", "read_key"]

_HOST = re.compile(r"[A-Za-z0-9._\-]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?")
_MAX_KEY = 512  # characters


@dataclass(frozen=True, slots=True)
class Call:
    """Who called which family of paths, and where links of the answer start.

    call_id: what the log lines of the call carry, and the answer's header. traceparent: of its
    span; empty: there are no traces.
    """

    api: Api
    key_id: str
    base_url: str
    call_id: str = ""
    traceparent: str = ""


def call_of(request: Request, api: Api, key_id: str, http: HttpConfig) -> Call:
    """Return what is known of the call that a request is."""
    state = request.state
    return Call(api, key_id, base_url(request, http), state.call_id, state.traceparent)


async def read_call(request: Request, service: Service, http: HttpConfig) -> tuple[Fields, str]:
    """Read the fields of a call, and find the id of the key that it has.

    Raises:
        errors.BodyTooLarge: by the limits of `http`.
        errors.InvalidJson: neither a JSON object nor a form.
        errors.InvalidKey: nobody's key, or none.
    """
    fields = await body.read(request, http)
    key_id = await service.identify(read_key(fields, request.headers))
    request.state.key_id = key_id  # for whoever counts what becomes of the call
    return fields, key_id


def read_key(fields: Fields, headers: Headers) -> str | None:
    """Take the API key from the body, else `Authorization: Bearer`, else the `key` header."""
    in_body = fields.get("key")
    scheme, _, token = headers.get("authorization", "").partition(" ")
    bearer = token if scheme.lower() == "bearer" else None
    for candidate in (in_body, bearer, headers.get("key")):
        if isinstance(candidate, str) and len(candidate) <= _MAX_KEY and coerce.clean(candidate):
            return coerce.clean(candidate)
    return None


def base_url(request: Request, http: HttpConfig) -> str:
    """Scheme, host and path prefix that links start with, without a slash at the end.

    The Host header is the client's own word: only a well-formed one gets into a link.
    """
    if http.public_url is not None:
        return http.public_url.rstrip("/")
    scope = request.scope
    host = request.headers.get("host", "")
    if not _HOST.fullmatch(host):
        name, port = scope.get("server") or ("localhost", None)
        host = name if port is None else f"{name}:{port}"
    return f"{scope.get('scheme', 'http')}://{host}{scope.get('root_path', '')}".rstrip("/")
