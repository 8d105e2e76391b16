"""`/admin/models/{id}/canary`: another revision of a model on a share of its calls."""

from typing import Annotated, Any

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
from serve_app.models.canaries import Canaries
from serve_app.models.canary import Canary, Score, Scores
from serve_app.models.entry import Entry, read_entry
from serve_app.models.problem import problems
from serve_app.types import Frozen

__all__ = ["router"]


class _CanaryBody(Frozen):
    """What a canary is made of; without an entry, only the share changes."""

    share: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
    entry: dict[str, Any] | None = None


def router(admin: Admin, http: HttpConfig) -> APIRouter:
    """Make the routes."""
    routes = APIRouter(prefix="/admin/models/{model_id}/canary", tags=["Administration"])
    canaries = Canaries(admin.registry)

    async def shown(model_id: str) -> Response:
        content = orjson.dumps(_row(*await canaries.find(model_id)))
        return Response(content, media_type="application/json")

    @routes.get("", summary="How a canary and its model fare")
    async def show(request: Request, model_id: str) -> Response:
        await admin.check(request)
        return await shown(model_id)

    @routes.put("", summary="Send a share of a model's calls to another revision of it")
    async def begin(request: Request, model_id: str) -> Response:
        await admin.check(request)
        asked, entry = _read(await body.read(request, http))
        if entry is None:
            await canaries.share(model_id, asked.share)
        elif entry.id != model_id:
            raise errors.InvalidRequest("id", "The entry of a canary has the id of its model.")
        else:
            await canaries.begin(entry, asked.share)
        return await shown(model_id)

    @routes.post("/promote", summary="Put the canary in place of the model's run-time entry")
    async def promote(request: Request, model_id: str) -> Response:
        await admin.check(request)
        await canaries.promote(model_id)
        return Response(status_code=204)

    @routes.delete("", summary="Remove the canary; its open jobs go to the model")
    async def roll_back(request: Request, model_id: str) -> Response:
        await admin.check(request)
        await canaries.roll_back(model_id)
        return Response(status_code=204)

    return routes


def _read(fields: Fields) -> tuple[_CanaryBody, Entry | None]:
    """Read a body.

    Raises:
        errors.InvalidFields: it is none; what was sent is not repeated.
    """
    said: object = fields
    try:
        asked = _CanaryBody.model_validate(fields)
        said = asked.entry
        return asked, None if asked.entry is None else read_entry(asked.entry)
    except ValidationError as exc:
        raise errors.InvalidFields(problems(exc, said)) from None


def _row(canary: Canary, scores: Scores) -> dict[str, object]:
    return {
        "model_id": canary.entry.id,
        "share": canary.share,
        "since": canary.since,
        "entry": canary.entry.model_dump(mode="json", exclude_unset=True),
        "model": _side(scores.model),
        "canary": _side(scores.canary),
    }


def _side(score: Score) -> dict[str, object]:
    return {**score.model_dump(), "error_rate": score.error_rate}
