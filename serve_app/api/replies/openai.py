"""Replies in the shape of OpenAI's API: refusals, pictures, models.

Source: OpenAI's API reference, "Images" and "Error codes", November 2026.
"""

import re

import orjson
from pydantic import BaseModel, JsonValue
from starlette.responses import Response

from serve_app import errors
from serve_app.types import JobFailure

__all__ = [
    "FLAGGED",
    "ImageRow",
    "ImagesReply",
    "ModelsReply",
    "ServedModelRow",
    "fault",
    "refusal",
]

FLAGGED = "moderation_blocked"
_CODES = {
    errors.InvalidKey.code: "invalid_api_key",
    errors.RateLimited.code: "rate_limit_exceeded",
    errors.InvalidFields.code: "invalid_value",
    errors.InvalidRequest.code: "invalid_value",
    errors.NotServed.code: "unsupported_value",
    errors.JobNotFound.code: "not_found",
}
_TEXTS = {
    errors.InvalidKey.code: "Incorrect API key provided.",
    errors.ModelNotFound.code: "The model does not exist. See /v1/models for those that do.",
    errors.InvalidJson.code: "The body is neither a JSON object nor a form that can be read.",
}
_PARAMS = {errors.ModelNotFound.code: "model", errors.NotServed.code: "model"}
# What a field of ours is called in a call of theirs.
_NAMES = {
    "model_id": "model",
    "samples": "n",
    "init_image": "image",
    "mask_image": "mask",
    "ip_adapter_image": "image",
    "width": "size",
    "height": "size",
}
_OURS = re.compile(r"\b(model|init|mask)[_ ](id|image)\b|\bsamples\b")


class ImageRow(BaseModel):
    """One picture, as a link, as base64, or both."""

    url: str | None = None
    b64_json: str | None = None
    revised_prompt: str | None = None


class ImagesReply(BaseModel):
    """All pictures of a call."""

    created: int
    data: list[ImageRow]
    background: str = "opaque"
    output_format: str
    quality: str
    size: str
    id: int
    seed: int


class ServedModelRow(BaseModel):
    """One model of the catalogue."""

    id: str
    object: str = "model"
    created: int = 0
    owned_by: str = "dreamserve"


class ModelsReply(BaseModel):
    """All models."""

    object: str = "list"
    data: list[ServedModelRow]


def fault(failure: JobFailure, status: int) -> dict[str, JsonValue]:
    """Describe what went wrong; `param` is the first field to blame, by its name in the call."""
    field, texts = next(iter(failure.fields.items()), (None, [failure.message]))
    param = _PARAMS.get(failure.code) if field is None else _NAMES.get(field, field)
    text = _TEXTS.get(failure.code) or " ".join(texts)
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {
        "message": _OURS.sub(_theirs, text),
        "type": "rate_limit_error" if status == 429 else kind,
        "param": param,
        "code": _CODES.get(failure.code, failure.code),
    }


def refusal(failure: JobFailure, status: int, headers: dict[str, str]) -> Response:
    """Answer with an error."""
    body = orjson.dumps({"error": fault(failure, status)})
    return Response(body, status, headers, "application/json")


def _theirs(found: re.Match[str]) -> str:
    return _NAMES.get(found[0].replace(" ", "_"), found[0])
