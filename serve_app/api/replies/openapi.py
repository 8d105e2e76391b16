"""What `/docs` shows of each call: body schema, example and replies.

The schemas take `integer | string` and the like, as clients really send them.
"""

import functools
import operator

from pydantic import JsonValue

from serve_app.api.replies.bodies import (
    CancelledReply,
    CheckReply,
    CropReply,
    DeletedReply,
    ErrorReply,
    FailedReply,
    FetchedReply,
    LoadReply,
    ModelRow,
    ProcessingReply,
    ReloadReply,
    RunningReply,
    SchedulersReply,
    SuccessReply,
    TokenReply,
    UrlReply,
)
from serve_app.api.replies.openai import ImagesReply
from serve_app.api.requests.schemas import WireModel
from serve_app.types import Api, Kind

__all__ = [
    "CALL_RESPONSES",
    "EVENTS",
    "EXAMPLES",
    "IDEMPOTENCY",
    "PATH_ID",
    "SUMMARIES",
    "generation_responses",
    "request_body",
]

Schema = dict[str, JsonValue]
Responses = dict[int | str, dict[str, object]]

_KEY: Schema = {
    "anyOf": [{"type": "string"}, {"type": "null"}],
    "description": "API key; also taken from `Authorization: Bearer` or a `key` header.",
}
_INIT_IMAGE = (
    "https://raw.githubusercontent.com/CompVis/stable-diffusion/main/data/inpainting_examples/"
    "overture-creations-5sI6fQgYIuo.png"
)
_TEXT2IMG: Schema = {
    "key": "",
    "model_id": "your_model_id",
    "prompt": "a cat sitting on a bench",
    "negative_prompt": None,
    "width": "512",
    "height": "512",
    "samples": "1",
    "num_inference_steps": "30",
    "safety_checker": "no",
    "enhance_prompt": "yes",
    "seed": None,
    "guidance_scale": 7.5,
    "scheduler": "UniPCMultistepScheduler",
    "ip_adapter_id": None,
    "ip_adapter_scale": 0.6,
    "ip_adapter_image": None,
    "webhook": None,
    "track_id": None,
}
_IMG2IMG: Schema = _TEXT2IMG | {"init_image": _INIT_IMAGE, "strength": 0.7}
_INPAINT: Schema = {
    "key": "",
    "model_id": "your_model_id",
    "prompt": "a cat sitting on a bench",
    "negative_prompt": None,
    "init_image": _INIT_IMAGE,
    "mask_image": _INIT_IMAGE.replace(".png", "_mask.png"),
    "width": "512",
    "height": "512",
    "samples": "1",
    "steps": "30",
    "safety_checker": "no",
    "enhance_prompt": "yes",
    "guidance_scale": 7.5,
    "strength": 0.7,
    "scheduler": "UniPCMultistepScheduler",
    "lora_model": None,
    "tomesd": "yes",
    "use_karras_sigmas": "yes",
    "vae": None,
    "lora_strength": None,
    "embeddings_model": None,
    "seed": None,
    "webhook": None,
    "track_id": None,
}
_CONTROLNET: Schema = _TEXT2IMG | {
    "controlnet_model": "canny",
    "controlnet_type": "canny",
    "auto_hint": "yes",
    "guess_mode": "no",
    "init_image": _INIT_IMAGE,
    "control_image": None,
    "mask_image": None,
    "controlnet_conditioning_scale": 0.7,
}
_OUTPAINT: Schema = {
    "key": "",
    "seed": 12345,
    "width": 512,
    "height": 512,
    "prompt": "a cat house in a green garden, cartoonish",
    "image": _INIT_IMAGE,
    "negative_prompt": "dull background, text, low quality",
    "overlap_width": 32,
    "num_inference_steps": 15,
    "guidance_scale": 8.0,
    "temp": True,
    "base64": False,
    "webhook": None,
    "track_id": None,
}
# A white picture of 64 x 64 pixels.
_PNG = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAAAAACPAi4CAAAAK0lEQVR42u3MMREAAAgEoNf+nTWEmwcB"
    "qMlNRyAQCAQCgUAgEAgEAsHzYAFQLQF/OJ8+2wAAAABJRU5ErkJggg=="
)


def _parameter(name: str, place: str, description: str) -> Schema:
    schema: Schema = {"type": "string"}
    return {"name": name, "in": place, "schema": schema, "description": description}


EXAMPLES: dict[str, Schema] = {
    Kind.TEXT2IMG: _TEXT2IMG,
    Kind.IMG2IMG: _IMG2IMG,
    Kind.INPAINT: _INPAINT,
    "controlnet": _CONTROLNET,
    "outpaint": _OUTPAINT,
    "fetch": {"key": "", "request_id": "13446970"},
    "cancel": {"key": "", "request_id": "13446970"},
    "model_list": {"key": ""},
    "model_reload": {"key": "", "model_id": "your_model_id"},
    "schedulers_list": {"key": ""},
    "unserved": {"key": ""},
    "delete_image": {"key": "", "request_id": 13446970},
    "system_load": {"key": ""},
    "base64_crop": {"key": "", "image": _PNG, "crop": "true"},
    "base64_to_url": {"key": "", "base64_string": _PNG},
    "events_token": {"key": ""},
    "/v1/images/generations": {
        "model": "your_model_id",
        "prompt": "a cat sitting on a bench",
        "size": "512x512",
        "steps": 30,
    },
    "/v1/images/edits": {"model": "your_model_id", "prompt": "a cat", "image": _INIT_IMAGE},
    "nsfw_image_check": {"key": "", "init_image": _INIT_IMAGE, "threshold": 0.5},
}
SUMMARIES: dict[str, str] = {
    Kind.TEXT2IMG: "Text to image",
    Kind.IMG2IMG: "Image to image",
    Kind.INPAINT: "Repaint the white part of a mask",
    "controlnet": "Any of these, steered by ControlNets",
    "outpaint": "Grow a picture to a larger canvas",
    "fetch": "Result of a job",
    "cancel": "Cancel a job (an extension of the hosted API)",
    "model_list": "Served models",
    "model_reload": "Take up the weights of a model anew",
    "schedulers_list": "Names of noise schedules",
    "unserved": "A category that is not served here",
    "delete_image": "Cancel a job and remove its files",
    "system_load": "How much is to do",
    "base64_crop": "Link to an inline picture, or to the square in its middle",
    "base64_to_url": "Link to an inline picture",
    "events": "Events of a job while it runs, as a stream (an extension of the hosted API)",
    "events_token": "A token that opens the stream of a job (an extension of the hosted API)",
    "/v1/images/generations": "Create image",
    "/v1/images/edits": "Create image edit",
    "nsfw_image_check": "Whether the safety checker flags a picture",
}
IDEMPOTENCY: Schema = {
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "schema": {"type": "string", "maxLength": 255},
            "description": "Repeats of a call with the same value get the job of the first.",
        }
    ]
}
_ID: Schema = {
    "name": "request_id",
    "in": "path",
    "required": True,
    "schema": {"type": "integer"},
    "description": "The id of the first reply.",
}
PATH_ID: Schema = {"parameters": [_ID]}
EVENTS: Schema = {
    "parameters": [
        _ID,
        _parameter("token", "query", "In place of the key, for clients that send no headers."),
        _parameter("previews", "query", "no: without pictures."),
        _parameter("Last-Event-ID", "header", "The id of the last event that was read."),
    ]
}


def request_body(model: type[WireModel], example: Schema) -> Schema:
    """Describe a body, as JSON and as both kinds of form."""
    schema = _schema(model)
    content: Schema = {
        "application/json": {"schema": schema, "example": example},
        "application/x-www-form-urlencoded": {"schema": schema},
        "multipart/form-data": {"schema": schema},
    }
    return {"requestBody": {"required": True, "content": content}}


@functools.cache  # some forty calls share a few bodies
def _schema(model: type[WireModel]) -> Schema:
    schema = model.model_json_schema()
    schema["properties"] = {"key": _KEY, **schema["properties"]}
    return schema


def _responses(*models: type) -> Responses:
    return {200: {"model": functools.reduce(operator.or_, models)}}


def generation_responses(api: Api) -> Responses:
    """List the replies of a generation call; V6 and V7 use real codes for errors."""
    done = _responses(SuccessReply, ProcessingReply, FailedReply, ErrorReply)
    if api in (Api.V3, Api.V4, Api.V5):
        return done
    return done | {code: {"model": ErrorReply} for code in (400, 401, 404, 413, 429, 500, 503)}


CALL_RESPONSES: dict[str, Responses] = {
    "fetch": _responses(FetchedReply, RunningReply, FailedReply, ErrorReply),
    "cancel": _responses(CancelledReply, FailedReply, ErrorReply),
    "model_list": _responses(list[ModelRow], ErrorReply),
    "model_reload": _responses(ReloadReply, ErrorReply),
    "schedulers_list": _responses(SchedulersReply, ErrorReply),
    "unserved": _responses(ErrorReply),
    "delete_image": _responses(DeletedReply, FailedReply, ErrorReply),
    "system_load": _responses(LoadReply, ErrorReply),
    "base64_crop": _responses(CropReply, ErrorReply),
    "base64_to_url": _responses(UrlReply, ErrorReply),
    "nsfw_image_check": _responses(CheckReply, ErrorReply),
    "/v1/images/generations": _responses(ImagesReply),
    "/v1/images/edits": _responses(ImagesReply),
    "events_token": _responses(TokenReply, FailedReply, ErrorReply),
    "events": {
        200: {
            "description": "queued, started, progress, preview, done, failed",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        204: {"description": "The client has heard the end of the job."},
    },
}
