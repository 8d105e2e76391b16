"""model_reload: loads a model's weights again. Replies show states, never paths or reasons."""

import math

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from serve_app import errors
from serve_app.api.protocol import Service
from serve_app.api.replies import openapi, wire
from serve_app.api.replies.bodies import ReloadReply, ReplicaRow
from serve_app.api.requests.call import read_call
from serve_app.api.requests.schemas import ReloadBody, parse
from serve_app.config import HttpConfig
from serve_app.models.protocol import ReplicaPhase, ReplicaReport
from serve_app.models.reload import ReloadState

__all__ = ["router"]

_ACTION = "model_reload"
_PATHS = ("/api/v4/dreambooth/model_reload", "/api/v6/images/model_reload")
_TEXTS = {
    ReplicaPhase.READY: ("success", "The model is loaded."),
    ReplicaPhase.LOADING: ("processing", "The model is loading. Try again after eta seconds."),
    ReplicaPhase.FAILED: ("error", errors.ReloadFailed.message),
}


def router(service: Service, http: HttpConfig) -> APIRouter:
    """Make the routes."""

    async def reload(request: Request) -> Response:
        fields, key_id = await read_call(request, service, http)
        model_id = parse(ReloadBody, fields).model_id
        known = await service.catalogue_knowing(model_id or "")
        if model_id is None or model_id not in {entry.id for entry in known}:
            raise errors.ModelNotFound(_ACTION)
        reply = _reply(await service.request_reload(model_id, key_id))
        if reply.reason is None:
            return wire.response(reply)
        return wire.response(reply, wire.status_of(reply.reason, wire.family(request.scope), http))

    routes = APIRouter(tags=["Models"])
    for path in _PATHS:
        routes.add_api_route(
            path,
            reload,
            methods=["POST"],
            name=path.removeprefix("/api/").replace("/", "_"),
            summary=openapi.SUMMARIES[_ACTION],
            openapi_extra=openapi.request_body(ReloadBody, openapi.EXAMPLES[_ACTION]),
            responses=openapi.CALL_RESPONSES[_ACTION],
        )
    return routes


def _reply(state: ReloadState) -> ReloadReply:
    status, text = _TEXTS[state.phase]
    return ReloadReply.model_validate(
        {
            "status": status,
            "message": text,
            "messege": text,
            "model_id": state.wanted.model_id,
            "generation": state.wanted.weights_version,
            "eta": math.ceil(state.eta_s) if status == "processing" else None,
            "reason": errors.ReloadFailed.code if status == "error" else None,
            "replicas": [_row(report) for report in state.replicas],
        }
    )


def _row(report: ReplicaReport) -> ReplicaRow:
    return ReplicaRow(
        replica=report.replica_id,
        status=report.phase.value,
        generation=report.weights_version,
        serving=report.serving,
    )
