"""`/admin/keys`, `/admin/usage` and `/admin/audit`, for holders of the operator's key."""

import asyncio
import csv
import io
import math
import re
from collections.abc import AsyncGenerator, Sequence
from typing import Annotated, TypeVar

import orjson
from fastapi import APIRouter
from pydantic import Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from serve_app import errors
from serve_app.api.requests import body
from serve_app.api.requests.body import Fields
from serve_app.api.routes.admin import Admin
from serve_app.config import HttpConfig
from serve_app.jobs.protocol import ApiKey, KeyStore, Usage, UsageStore
from serve_app.jobs.rules import MAX_LIFETIME_S, KeyRules
from serve_app.models.problem import problems
from serve_app.types import Frozen
from serve_app.webhooks.signing import new_secret

__all__ = ["router"]

_LIMIT = re.compile(r"[1-9][0-9]{0,5}")
_MONTH = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")
_MAX_ROWS = 10_000
_ROWS = 1000
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
        if request.query_params.get("format") == "csv":
            return StreamingResponse(_csv(accounts.usage, month), media_type="text/csv")
        limit, after = _page(request)
        place = None if after is None else _place(after)
        rows = await accounts.usage.usage(month, limit, place)
        further = "/".join(_named(rows[-1])) if len(rows) == limit else None
        return await _listed({"month": month, "next": further}, "usage", rows)

    @routes.get("/audit", summary="What operators did, the latest first")
    async def audit(request: Request) -> Response:
        await admin.check(request)
        limit, _ = _page(request, 100)
        deeds = await accounts.audit.deeds(limit, request.query_params.get("subject"))
        return await _listed({}, "audit", deeds)

    return routes


def _add_keys(routes: APIRouter, admin: Admin, keys: KeyStore, http: HttpConfig) -> None:
    @routes.get("/keys", summary="API keys, without their secrets, page by page")
    async def list_keys(request: Request) -> Response:
        await admin.check(request)
        limit, after = _page(request)
        found = await keys.list_keys(limit, after)
        further = found[-1].id if len(found) == limit else None
        return await _listed({"next": further}, "keys", found)

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


def _page(request: Request, common: int = _ROWS) -> tuple[int, str | None]:
    """Read how many rows are asked for, and which one was the last before them.

    Raises:
        errors.InvalidRequest: no number, or too large.
    """
    limit = request.query_params.get("limit", str(common))
    if not _LIMIT.fullmatch(limit) or int(limit) > _MAX_ROWS:
        raise errors.InvalidRequest("limit", f"limit must be 1 to {_MAX_ROWS}")
    return int(limit), request.query_params.get("after")


def _place(after: str) -> tuple[str, str, str]:
    """Read which row of a month was the last.

    Raises:
        errors.InvalidRequest: this says none.
    """
    parts = after.split("/")
    if len(parts) != len(("day", "key", "model")):
        raise errors.InvalidRequest("after", "after must be what next was")
    return parts[0], parts[1], parts[2]


def _named(row: Usage) -> tuple[str, str, str]:
    return row.day, row.key_id, row.model_id


async def _listed(said: dict[str, object], name: str, rows: Sequence[Frozen]) -> Response:
    """Answer with rows, written beside the event loop: thousands take a while."""
    return await asyncio.to_thread(
        lambda: _json({**said, name: [row.model_dump(mode="json") for row in rows]})
    )


async def _csv(store: UsageStore, month: str) -> AsyncGenerator[str, None]:
    """Write a month page by page, so that no more than one is in memory."""
    after: tuple[str, str, str] | None = None
    is_first = True
    while True:
        rows = await store.usage(month, _ROWS, after)
        yield await asyncio.to_thread(_csv_rows, rows, has_header=is_first)
        if len(rows) < _ROWS:
            return
        after, is_first = _named(rows[-1]), False


def _csv_rows(rows: Sequence[Usage], *, has_header: bool) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(Usage.model_fields), lineterminator="\n")
    if has_header:
        writer.writeheader()
    writer.writerows(row.model_dump() for row in rows)
    return text.getvalue()


def _json(content: dict[str, object], status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")
