"""The body that webhooks get."""

import json

import pytest

from serve_app import errors
from serve_app.api.replies.webhook import WebhookWriter
from serve_app.config import StorageConfig
from serve_app.failure import to_failure
from serve_app.storage.link import FileLinks
from serve_app.testing.storage import MemoryStore
from serve_app.types import GenerationSpec, Job, JobRequest, JobResult, JobState, Kind, OutputPlan


def job(track_id):
    spec = GenerationSpec(
        model_id="m",
        kind=Kind.TEXT2IMG,
        prompt="a cat",
        height=64,
        width=64,
        steps=4,
        seed=7,
        scheduler="DDIMScheduler",
    )
    request = JobRequest(
        spec=spec,
        output=OutputPlan(keys=("generations/u-0.png",)),
        key_id="open",
        base_url="https://img.example",
        webhook="https://a.example/h",
        track_id=track_id,
    )
    return Job(id=5, state=JobState.PROCESSING, request=request, created_at=0)


async def write(job, outcome):
    return json.loads(
        await WebhookWriter(FileLinks(MemoryStore(), StorageConfig()).make).write(job, outcome)
    )


@pytest.mark.parametrize("track_id", ["order-7", 7, None, 10**30, "\ud800", {"a": ["\0"]}])
async def test_body_of_a_success_is_the_documented_one(track_id):
    result = JobResult(keys=("generations/u-0.png",), nsfw=(False,), generation_time_s=1.5)
    body = await write(job(track_id), result)
    assert (body["status"], body["id"], body["track_id"]) == ("success", 5, track_id)
    assert body["output"] == ["https://img.example/files/generations/u-0.png"]
    assert body["generationTime"] == 1.5
    assert body["meta"]["seed"] == 7


async def test_body_of_a_failure_is_the_documented_one():
    body = await write(job("t"), to_failure(errors.GenerationFailed("oom")))
    assert (body["status"], body["id"], body["track_id"]) == ("failed", 5, "t")
    assert (body["message"], body["output"]) == ("Failed, Try Again", [])


async def test_body_of_a_cancelled_job_is_a_failure_with_its_reason():
    body = await write(job("t"), to_failure(errors.Cancelled()))
    assert (body["status"], body["reason"], body["output"]) == ("failed", "cancelled", [])
    assert body["message"] == "The request was cancelled."


async def test_body_shows_what_ran():
    result = JobResult(keys=(), nsfw=(), generation_time_s=1.5, ran={"scheduler": "LCMScheduler"})
    assert (await write(job(1), result))["meta"]["scheduler"] == "LCMScheduler"


async def test_links_are_the_stores_own():
    async def sign(key, base_url):
        return f"https://bucket.example/{key}?signed&{base_url}"

    result = JobResult(keys=("temp/u-0.png",), nsfw=(False,), generation_time_s=1.5)
    body = json.loads(await WebhookWriter(sign).write(job(1), result))
    assert body["output"] == ["https://bucket.example/temp/u-0.png?signed&https://img.example"]
