"""`/admin/models`: run-time entries of the catalogue, for holders of the operator's key.

Not part of the hosted API: real HTTP codes, one shape of errors. Without `auth.admin_key` there are
no such paths.
"""

import hashlib
import hmac
from dataclasses import dataclass

import orjson
from fastapi import APIRouter
from pydantic import SecretStr, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from serve_app import errors
from serve_app.api.requests import body
from serve_app.api.requests.body import Fields
from serve_app.config import HttpConfig
from serve_app.jobs.protocol import AuditLog, KeyStore, UsageStore
from serve_app.jobs.rate import RateLimiter
from serve_app.models.entry import AddOn, Entry, read_entry
from serve_app.models.problem import problems
from serve_app.models.registry import Registry
from serve_app.models.reload import Reloads, ReloadState, read_revision
from serve_app.telemetry.actor import set_actor

__all__ = ["Accounts", "Admin", "router"]


@dataclass(frozen=True, slots=True)
class Accounts:
    """Who may call, what it cost, and who changed what."""

    keys: KeyStore
    usage: UsageStore
    audit: AuditLog


@dataclass(frozen=True, slots=True)
class Admin:
    """What operators may do, and the key that says who is one. failures: counted by address."""

    registry: Registry
    reloads: Reloads
    key: SecretStr
    failures: RateLimiter
    accounts: Accounts

    async def check(self, request: Request) -> None:
        """Check the admin key, in the same time whatever was sent.

        Raises:
            errors.InvalidKey: no key, or another one.
            errors.RateLimited: too many of these came from this address.
        """
        address = "" if request.client is None else request.client.host
        await self.failures.check(address)
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        sent = hashlib.sha256(token.strip().encode("utf-8", "replace")).digest()
        wanted = hashlib.sha256(self.key.get_secret_value().encode()).digest()
        if not hmac.compare_digest(sent, wanted) or scheme.lower() != "bearer":
            await self.failures.count(address)
            raise errors.InvalidKey("admin")
        set_actor(f"admin:{address}")


def router(admin: Admin, http: HttpConfig) -> APIRouter:
    """Make the routes."""
    routes = APIRouter(prefix="/admin/models", tags=["Administration"])

    @routes.get("", summary="All entries of the catalogue")
    async def list_entries(request: Request) -> Response:
        await admin.check(request)
        entries = await admin.registry.entries()
        return _json({"models": [_row(entry, is_added) for entry, is_added in entries]})

    @routes.post("", summary="Add an entry, or replace the run-time entry of the same id")
    async def add(request: Request) -> Response:
        await admin.check(request)
        entry = _read(await body.read(request, http))
        await admin.registry.add(entry)
        return _json(_row(entry, True), 201)

    @routes.delete("/{model_id}", summary="Remove a run-time entry")
    async def remove(request: Request, model_id: str) -> Response:
        await admin.check(request)
        await admin.registry.remove(model_id)
        return Response(status_code=204)

    @routes.get("/{model_id}/replicas", summary="Which weights the replicas of a model serve")
    async def replicas(request: Request, model_id: str) -> Response:
        await admin.check(request)
        await admin.registry.find_model(model_id)
        return _json(_state(await admin.reloads.status(model_id)))

    @routes.post("/{model_id}/reload", summary="Take up the weights of a model anew")
    async def reload(request: Request, model_id: str) -> Response:
        await admin.check(request)
        fields = await body.read(request, http)
        entry = await admin.registry.find_model(model_id)
        revision = read_revision(fields.get("revision"), has_revisions=entry.has_revisions)
        return _json(_state(await admin.reloads.request(model_id, revision)))

    return routes


def _read(fields: Fields) -> Entry:
    """Read the fields of a model file.

    Raises:
        errors.InvalidFields: they are none; what was sent is not repeated.
    """
    try:
        return read_entry(fields)
    except ValidationError as exc:
        raise errors.InvalidFields(problems(exc, fields)) from None


def _state(state: ReloadState) -> dict[str, object]:
    return {
        "model_id": state.wanted.model_id,
        "generation": state.wanted.weights_version,
        "revision": state.wanted.revision,
        "status": state.phase,
        "replicas": [
            report.model_dump(by_alias=True, exclude={"model_id"}) for report in state.replicas
        ],
    }


def _row(entry: Entry, is_added: bool) -> dict[str, object]:
    return {
        "id": entry.id,
        "type": entry.type if isinstance(entry, AddOn) else "model",
        "added_at_run_time": is_added,
        "entry": entry.model_dump(mode="json", exclude_unset=True),
    }


def _json(content: dict[str, object], status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")
