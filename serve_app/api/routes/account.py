"""`/admin/keys`, `/admin/usage` and `/admin/audit`, for holders of the operator's key."""

import csv
import io
import math
import re
from typing import Annotated, TypeVar

import orjson
from fastapi import APIRouter
from pydantic import Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from serve_app import errors
from serve_app.api.requests import body
from serve_app.api.requests.body import Fields
from serve_app.api.routes.admin import Admin
from serve_app.config import HttpConfig
from serve_app.jobs.protocol import ApiKey, KeyStore, Usage
from serve_app.jobs.rules import MAX_LIFETIME_S, KeyRules
from serve_app.models.problem import problems
from serve_app.types import Frozen
from serve_app.webhooks.signing import new_secret

__all__ = ["router"]

_LIMIT = re.compile(r"[1-9][0-9]{0,5}")
_MONTH = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")
_MAX_DEEDS = 10_000
_Duration = Annotated[float, Field(ge=0, le=MAX_LIFETIME_S, allow_inf_nan=False)]

Asked = TypeVar("Asked", bound=Frozen)
Found = TypeVar("Found")


class _KeyBody(Frozen):
    """What a key is made of; `lifetime_s` from now on, 0: it does not expire."""

    name: str = Field(min_length=1, max_length=200)
    rules: KeyRules = KeyRules()
    lifetime_s: _Duration = 0.0


class _ChangeBody(Frozen):
    """What of a key is changed: its rules as a whole, or when it expires, or both."""

    rules: KeyRules | None = None
    lifetime_s: _Duration | None = None


class _RotateBody(Frozen):
    overlap_s: _Duration = 86_400.0


def router(admin: Admin, http: HttpConfig) -> APIRouter:
    """Make the routes."""
    routes = APIRouter(prefix="/admin", tags=["Administration"])
    accounts = admin.accounts
    _add_keys(routes, admin, accounts.keys, http)

    @routes.get("/usage", summary="What the jobs of a month cost, by day, key and model")
    async def usage(request: Request) -> Response:
        await admin.check(request)
        month = request.query_params.get("month") or await accounts.usage.this_month()
        if not _MONTH.fullmatch(month):
            raise errors.InvalidRequest("month", "month must be such as 2026-11")
        rows = await accounts.usage.usage(month)
        if request.query_params.get("format") == "csv":
            return Response(_csv(rows), media_type="text/csv")
        return _json({"month": month, "usage": [row.model_dump() for row in rows]})

    @routes.get("/audit", summary="What operators did, the latest first")
    async def audit(request: Request) -> Response:
        await admin.check(request)
        limit = request.query_params.get("limit", "100")
        if not _LIMIT.fullmatch(limit) or int(limit) > _MAX_DEEDS:
            raise errors.InvalidRequest("limit", f"limit must be 1 to {_MAX_DEEDS}")
        deeds = await accounts.audit.deeds(int(limit), request.query_params.get("subject"))
        return _json({"audit": [deed.model_dump() for deed in deeds]})

    return routes


def _add_keys(routes: APIRouter, admin: Admin, keys: KeyStore, http: HttpConfig) -> None:
    @routes.get("/keys", summary="All API keys, without their secrets")
    async def list_keys(request: Request) -> Response:
        await admin.check(request)
        return _json({"keys": [_row(key) for key in await keys.list_keys()]})

    @routes.post("/keys", summary="Make an API key; the answer has its secret, once")
    async def create(request: Request) -> Response:
        await admin.check(request)
        asked = _parse(_KeyBody, await body.read(request, http))
        key, secret = await keys.create(asked.name, asked.rules, asked.lifetime_s or None)
        return _json({**_row(key), "secret": secret}, 201)

    @routes.get("/keys/{key_id}", summary="One API key")
    async def find(request: Request, key_id: str) -> Response:
        await admin.check(request)
        return _json(_row(_known(await keys.find(key_id))))

    @routes.patch("/keys/{key_id}", summary="Change what a key may ask for, on all replicas")
    async def change(request: Request, key_id: str) -> Response:
        await admin.check(request)
        asked = _parse(_ChangeBody, await body.read(request, http))
        known = _known(await keys.find(key_id))
        lifetime_s = math.inf if asked.lifetime_s == 0 else asked.lifetime_s
        rules = known.rules if asked.rules is None else asked.rules
        return _json(_row(_known(await keys.change(key_id, rules, lifetime_s))))

    @routes.post("/keys/{key_id}/rotate", summary="Give a key a new secret, once in the answer")
    async def rotate(request: Request, key_id: str) -> Response:
        await admin.check(request)
        asked = _parse(_RotateBody, await body.read(request, http))
        return _json({"id": key_id, "secret": _known(await keys.rotate(key_id, asked.overlap_s))})

    @routes.post(
        "/keys/{key_id}/webhook_secret",
        summary="Sign a key's webhooks with a secret of its own",
    )
    async def sign(request: Request, key_id: str) -> Response:
        await admin.check(request)
        secret = new_secret()
        _known(await keys.sign_with(key_id, secret) or None)
        return _json({"id": key_id, "webhook_secret": secret})

    @routes.delete(
        "/keys/{key_id}/webhook_secret", summary="Sign a key's webhooks as the settings say again"
    )
    async def unsign(request: Request, key_id: str) -> Response:
        await admin.check(request)
        _known(await keys.sign_with(key_id, None) or None)
        return Response(status_code=204)

    @routes.delete("/keys/{key_id}", summary="End a key for good")
    async def revoke(request: Request, key_id: str) -> Response:
        await admin.check(request)
        _known(await keys.revoke(key_id) or None)
        return Response(status_code=204)


def _parse(kind: type[Asked], fields: Fields) -> Asked:
    """Read a body.

    Raises:
        errors.InvalidFields: it is none; what was sent is not repeated.
    """
    try:
        return kind.model_validate(fields)
    except ValidationError as exc:
        raise errors.InvalidFields(problems(exc, fields)) from None


def _known(found: Found | None) -> Found:
    """Return what was found.

    Raises:
        errors.InvalidRequest: nothing was.
    """
    if found is None:
        raise errors.InvalidRequest("id", "No active key has this id.")
    return found


def _row(key: ApiKey) -> dict[str, object]:
    return key.model_dump(mode="json")


def _csv(rows: list[Usage]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(Usage.model_fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.model_dump() for row in rows)
    return text.getvalue()


def _json(content: dict[str, object], status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")
