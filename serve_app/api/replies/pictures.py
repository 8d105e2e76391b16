"""The pictures of a finished job as OpenAI's clients want them: inside the reply, or as links."""

import asyncio
import base64
import time

from pydantic import JsonValue

from serve_app import errors
from serve_app.api.protocol import Service
from serve_app.api.replies.openai import FLAGGED, ImageRow, ImagesReply
from serve_app.api.replies.present import failure_of
from serve_app.api.requests.openai import ImagesBody
from serve_app.types import Job, JobFailure

__all__ = ["completed", "failure_of_call", "images_reply", "partial"]

_FLAGGED_TEXT = "The safety checker has flagged what was made, so it is not shown."
# No token is counted here, but clients look for the numbers.
_USAGE: dict[str, JsonValue] = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}


def failure_of_call(job: Job) -> JobFailure | None:
    """Return why a job has no pictures to show; None: it has."""
    if job.result is None:
        return failure_of(job)
    if any(job.result.nsfw):
        return JobFailure(code=FLAGGED, message=_FLAGGED_TEXT)
    return None


async def images_reply(job: Job, asked: ImagesBody, service: Service) -> ImagesReply:
    """Answer with all pictures.

    Raises:
        errors.StorageUnavailable: a file cannot be read.
    """
    keys = job.request.output.keys
    revised = _revised(job, asked)
    data = []
    for key in keys:
        url = text = None
        if asked.response_format != "b64_json":
            url = await service.output_url(key, job.request.base_url)
        if asked.response_format != "url":
            text = await _base64(key, service)
        data.append(ImageRow(url=url, b64_json=text, revised_prompt=revised))
    return ImagesReply(
        created=int(time.time()),
        data=data,
        output_format=job.request.output.format,
        quality=asked.quality or "auto",
        size=_size(job),
        id=job.id,
        seed=job.request.spec.seed,
    )


async def completed(
    job: Job, asked: ImagesBody, key: str, service: Service
) -> dict[str, JsonValue]:
    """Describe one picture for the last event of a stream."""
    text = await _base64(key, service)
    shown = _shown(asked, text, _size(job), job.request.output.format)
    shown["usage"] = _USAGE
    return shown


def partial(job: Job, asked: ImagesBody, image: bytes, index: int) -> dict[str, JsonValue]:
    """Describe a preview; it is a JPEG, whatever was asked for."""
    shown = _shown(asked, base64.b64encode(image).decode(), _size(job), "jpeg")
    shown["partial_image_index"] = index
    return shown


def _shown(asked: ImagesBody, text: str, size: str, form: str) -> dict[str, JsonValue]:
    return {
        "b64_json": text,
        "created_at": int(time.time()),
        "size": size,
        "quality": asked.quality or "auto",
        "background": "opaque",
        "output_format": form,
    }


async def _base64(key: str, service: Service) -> str:
    file = await service.read_file(key)
    if file is None:
        raise errors.StorageUnavailable("a result is not there any more")
    return (await asyncio.to_thread(base64.b64encode, file.data)).decode()


def _size(job: Job) -> str:
    spec, ran = job.request.spec, {} if job.result is None else job.result.ran
    sides = (int(str(ran.get(name, own))) for name, own in (("W", spec.width), ("H", spec.height)))
    return "x".join(str(side * spec.upscale) for side in sides)


def _revised(job: Job, asked: ImagesBody) -> str | None:
    ran = {} if job.result is None else job.result.ran
    prompt = str(ran.get("prompt", job.request.spec.prompt))
    return None if prompt == asked.prompt else prompt
