"""Replies and errors to HTTP: the one table of texts, shapes and status codes per family of paths.

By default V3 and V4 answer HTTP 200 with `status: "error"`, V6 and V7 real codes. Errors are
read by their attributes: across Ray actors the class may be wrapped, its facts are not.
"""

import math
import re

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from serve_app import errors
from serve_app.api.replies import openai
from serve_app.api.replies.bodies import ErrorReply, FailedReply, ReloadReply, Reply
from serve_app.config import HttpConfig
from serve_app.failure import to_failure
from serve_app.telemetry import tally
from serve_app.types import Api, JobFailure

__all__ = [
    "ROUTING_TEXTS",
    "family",
    "find",
    "job_error",
    "name_field",
    "on_http_exception",
    "respond",
    "response",
    "route",
    "status_of",
]

_LEGACY = (Api.V3, Api.V4, Api.V5)
_PATH = re.compile(r"/api/(v\d)(?:/|$)")
_OPENAI_PATH = re.compile(r"/v1(?:/|$)")
_FAMILIES = {api.value: api for api in Api} | {"v1": Api.V4}  # of the same era

_KEY_TIP = (
    "1. Make sure you are passing Content-Type: application/json in header. "
    "2. Make sure you are doing POST request with valid JSON. "
    "3. Make sure your JSON does not have error, use jsonlint to validate json array. "
    "4. Make sure you have valid API key."
)
_JSON_TIP = _KEY_TIP.partition(" 4.")[0]
_RATE_TIPS = (
    "you are sending same request multiple times, spam filter is enabled, "
    "please wait for {seconds} seconds and try again"
)
_OPEN_TIPS = (
    "your key has {limit} requests queued or processing, which is the most it may have, "
    "please wait for {seconds} seconds and try again, or cancel one of them"
)
ROUTING_TEXTS = {
    404: "There is no such API call. See /docs.",
    405: "This method is not allowed here. Use POST for API calls.",
}
_DEFAULT_RETRY_S = 5  # for retryable errors that do not know better
_ERRORS = [
    cls
    for cls in vars(errors).values()
    if isinstance(cls, type) and issubclass(cls, errors.DreamserveError)
]
_STATUS = {cls.code: cls.status for cls in _ERRORS}
_RETRYABLE = {cls.code for cls in _ERRORS if cls.retryable}


def family(scope: Scope) -> Api | None:
    """Return the family that a call's path belongs to; None outside the API."""
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    if _OPENAI_PATH.match(path):
        return Api.OPENAI
    match = _PATH.match(path)
    if match is None:
        return None
    return _FAMILIES.get(match.group(1))


def find(error: BaseException) -> errors.DreamserveError | None:
    """Find our error in one that another layer (Ray, a task group) wrapped, if there is one."""
    seen: BaseException | None = error
    for _ in range(5):  # a chain of causes may be a ring
        if seen is None or isinstance(seen, errors.DreamserveError):
            return seen
        if isinstance(seen, BaseExceptionGroup):
            seen = seen.exceptions[0]
        else:
            seen = getattr(seen, "cause", None) or seen.__cause__
    return None


def status_of(code: str, api: Api | None, http: HttpConfig) -> int:
    """HTTP status of an error code on a family of paths."""
    is_real = http.real_codes_v3_v4 if api in _LEGACY else http.real_codes_v6_v7
    is_real = is_real or api in (None, Api.OPENAI)
    return _STATUS.get(code, 500) if is_real else 200


def route(scope: Scope) -> str:
    """Template of the matched route: a path itself may hold the secret name of a file."""
    return getattr(scope.get("route"), "path", tally.NO_PATH)


def respond(error: errors.DreamserveError, scope: Scope, http: HttpConfig) -> Response:
    """Answer a call with an error, and count it."""
    key_id = scope.get("state", {}).get("key_id", tally.NOBODY)
    tally.ERRORS.add(error.code, route(scope), key_id)
    api = family(scope)
    retry_s = _retry_after_s(error)
    status = status_of(error.code, api, http)
    headers = {}
    if retry_s is not None and status != 200:
        headers["Retry-After"] = str(retry_s)
    failure = to_failure(error)
    if api is Api.OPENAI:
        return openai.refusal(failure, status, headers)
    reply = _reply(failure, api, retry_s, _tips(error, retry_s))
    return response(reply, status, headers)


def retry_headers(code: str) -> dict[str, str]:
    """Return the headers of a job's failure; of one that is not worth a try there are none."""
    return {"Retry-After": str(_DEFAULT_RETRY_S)} if code in _RETRYABLE else {}


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Answer an unknown path or a wrong method, with its real code on every family."""
    assert isinstance(error, HTTPException), "registered for this class only"
    text = ROUTING_TEXTS.get(error.status_code, "Invalid API Request")
    tally.ERRORS.add(tally.NO_CALL, tally.NO_PATH)
    if family(request.scope) is Api.OPENAI:
        failure = JobFailure(code=tally.NO_CALL, message=text)
        return openai.refusal(failure, error.status_code, dict(error.headers or {}))
    reply = ErrorReply(message=text, messege=text, reason=tally.NO_CALL)
    return response(reply, error.status_code, dict(error.headers or {}))


def job_error(failure: JobFailure, api: Api) -> Reply:
    """Describe the failure of a job to the call that waited for it."""
    if failure.fields:
        return _reply(failure, api)
    return FailedReply(message=failure.message, messege=failure.message, reason=failure.code)


def response(reply: Reply, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Put a reply on the wire; keys that have no value in this reply are left out."""
    body = reply.model_dump()
    if isinstance(reply, ErrorReply | ReloadReply):
        body = {name: value for name, value in body.items() if value is not None}
    return Response(orjson.dumps(body), status, headers, "application/json")


def _retry_after_s(error: errors.DreamserveError) -> int | None:
    if not error.retryable:
        return None
    if isinstance(error, errors.RateLimited | errors.Overloaded):
        return max(1, math.ceil(error.retry_after_s))
    return _DEFAULT_RETRY_S


def _tips(error: errors.DreamserveError, retry_s: int | None) -> str | None:
    if isinstance(error, errors.TooManyOpen):
        return _OPEN_TIPS.format(limit=error.limit, seconds=retry_s)
    return _RATE_TIPS.format(seconds=retry_s) if isinstance(error, errors.RateLimited) else None


def _reply(
    failure: JobFailure, api: Api | None, retry_s: int | None = None, tips: str | None = None
) -> Reply:
    code = failure.code
    if code == errors.JobNotFound.code:
        return FailedReply(message=failure.message, messege=failure.message, reason=code)
    is_legacy = api in _LEGACY
    message: str | dict[str, list[str]] = failure.message
    if failure.fields:
        message = failure.fields if is_legacy else _plain(failure.fields)
    elif code == errors.InvalidKey.code and not is_legacy:
        message = "Invalid API key"
    elif code == errors.RateLimited.code and is_legacy:
        message = errors.RateLimited.message
    return ErrorReply(
        message=message,
        messege=message,
        tip={errors.InvalidKey.code: _KEY_TIP, errors.InvalidJson.code: _JSON_TIP}.get(code),
        tips=tips,
        retry_after=retry_s,
        reason=code,
    )


def _plain(fields: dict[str, list[str]]) -> str:
    """Word field messages as the 2026 pages do: "prompt is required; width must be ..."."""
    return "; ".join(_plain_one(name, text) for name, texts in fields.items() for text in texts)


def _plain_one(field: str, text: str) -> str:
    rest = text.removeprefix(f"The {field.replace('_', ' ')} ")
    if rest == text:
        return name_field(field, text)
    return f"{field} {rest.removeprefix('field ').removesuffix('.')}"


def name_field(field: str, text: str) -> str:
    """Put the field before a message that does not name it."""
    return text if field in text else f"{field}: {text}"
