"""The pictures of a finished job as OpenAI's clients want them: inside the reply, or as links.

A picture inside is read when its turn to be written comes, and written in chunks: of all that a
reply holds only one file is in memory.
"""

import asyncio
import base64
import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Sequence

import orjson
from pydantic import JsonValue

from serve_app import errors
from serve_app.api.protocol import Service
from serve_app.api.replies.budget import Budget
from serve_app.api.replies.openai import FLAGGED, ImageRow, ImagesReply
from serve_app.api.replies.present import failure_of
from serve_app.api.requests.openai import ImagesBody
from serve_app.types import Job, JobFailure

__all__ = ["completed_pieces", "failure_of_call", "partial", "reply_pieces"]

_FLAGGED_TEXT = "The safety checker has flagged what was made, so it is not shown."
_CHUNK_BYTES = 3 * 256 * 1024  # a multiple of 3: base64 of the parts is that of the whole
_FILE_BYTES = 64 * 1024  # of a file besides its pixels
# No token is counted here, but clients look for the numbers.
_USAGE: dict[str, JsonValue] = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}


def failure_of_call(job: Job) -> JobFailure | None:
    """Return why a job has no pictures to show; None: it has."""
    if job.result is None:
        return failure_of(job)
    if any(job.result.nsfw):
        return JobFailure(code=FLAGGED, message=_FLAGGED_TEXT)
    return None


async def reply_pieces(
    job: Job, asked: ImagesBody, service: Service, budget: Budget
) -> AsyncGenerator[bytes, None]:
    """Write the answer with all pictures.

    Raises:
        errors.StorageUnavailable: a file cannot be read.
        errors.Overloaded: `budget` has no room.
    """
    mark, keys = _mark(), job.request.output.keys
    reply = await _reply(job, asked, service, mark)
    text = orjson.dumps(reply.model_dump(exclude_none=True))
    inside = keys if asked.response_format != "url" else ()
    async with contextlib.aclosing(_filled(text, mark, inside, job, service, budget)) as pieces:
        async for piece in pieces:
            yield piece


async def completed_pieces(
    job: Job,
    asked: ImagesBody,
    key: str,
    service: Service,
    budget: Budget,
    write: Callable[[dict[str, JsonValue]], bytes],
) -> AsyncGenerator[bytes, None]:
    """Write one picture as the last event of a stream, which `write` makes; raises as a reply."""
    mark = _mark()
    shown = _shown(asked, mark, _size(job), job.request.output.format)
    shown["usage"] = _USAGE
    filled = _filled(write(shown), mark, [key], job, service, budget)
    async with contextlib.aclosing(filled) as pieces:
        async for piece in pieces:
            yield piece


async def _reply(job: Job, asked: ImagesBody, service: Service, mark: str) -> ImagesReply:
    revised = _revised(job, asked)
    data = []
    for key in job.request.output.keys:
        url = None
        if asked.response_format != "b64_json":
            url = await service.output_url(key, job.request.base_url)
        text = None if asked.response_format == "url" else mark
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


def _chunk(data: bytes, at: int) -> bytes:
    return base64.b64encode(memoryview(data)[at : at + _CHUNK_BYTES])


def _mark() -> str:
    """Make a word that stands for a picture and for nothing else."""
    return secrets.token_hex(16)


async def _filled(
    text: bytes, mark: str, keys: Sequence[str], job: Job, service: Service, budget: Budget
) -> AsyncGenerator[bytes, None]:
    """Write a text with the files in place of the marks, in their order."""
    before, *rest = text.split(mark.encode())
    for key, after in zip(keys, rest, strict=True):
        async with budget.hold(_max_bytes(job)):
            file = await service.read_file(key)
            if file is None:
                raise errors.StorageUnavailable("a result is not there any more")
            yield before
            for at in range(0, len(file.data), _CHUNK_BYTES):
                yield await asyncio.to_thread(_chunk, file.data, at)
            del file  # before the next one is waited for
        before = after
    yield before


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


def _size(job: Job) -> str:
    return "x".join(map(str, _sides(job)))


def _sides(job: Job) -> tuple[int, int]:
    """Width and height of a result, pixels."""
    spec, ran = job.request.spec, {} if job.result is None else job.result.ran
    width, height = int(str(ran.get("W", spec.width))), int(str(ran.get("H", spec.height)))
    return width * spec.upscale, height * spec.upscale


def _max_bytes(job: Job) -> int:
    """Return what the file of a result has at most: noise, which PNG cannot make smaller."""
    width, height = _sides(job)
    return 3 * width * height + _FILE_BYTES


def _revised(job: Job, asked: ImagesBody) -> str | None:
    ran = {} if job.result is None else job.result.ran
    prompt = str(ran.get("prompt", job.request.spec.prompt))
    return None if prompt == asked.prompt else prompt
