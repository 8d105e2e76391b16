"""`Idempotency-Key`: repeats of a call get the job of the first."""

import asyncio

import pytest

from serve_app import errors
from serve_app.types import JobState

TEXT2IMG = "/api/v4/dreambooth"
INPAINT = "/api/v4/dreambooth/inpaint"


def named(value="order-7"):
    return {"Idempotency-Key": value}


async def test_repeated_call_gets_the_job_of_the_first(api, text_body):
    first, second = [await api.reply(TEXT2IMG, text_body, headers=named()) for _ in range(2)]
    assert (first["id"], first["meta"]["seed"]) == (second["id"], second["meta"]["seed"])
    assert len(api.service.jobs) == 1


async def test_repeat_is_answered_though_the_queue_is_full(api, text_body):
    first = await api.reply(TEXT2IMG, text_body, headers=named())
    api.service.refusal = errors.Overloaded()
    assert (await api.reply(TEXT2IMG, text_body, headers=named()))["id"] == first["id"]
    assert (await api.reply(TEXT2IMG, text_body))["reason"] == "overloaded"


async def test_repeat_stores_no_picture_again(api, inpaint_body):
    body = inpaint_body | {"init_image": "aGk=", "mask_image": "aGk="}
    for _ in range(2):
        await api.reply(INPAINT, body, headers=named())
    assert len(api.service.inputs) == 2


async def test_calls_without_the_header_are_jobs_of_their_own(api, text_body):
    for headers in (None, None, named(""), named(" ")):
        await api.reply(TEXT2IMG, text_body, headers=headers)
    assert len(api.service.jobs) == 4


@pytest.mark.parametrize(
    ("path", "changes"), [(TEXT2IMG, {"prompt": "a dog"}), ("/api/v3/dreambooth", {})]
)
async def test_same_value_for_another_request_is_refused(api, text_body, path, changes):
    await api.reply(TEXT2IMG, text_body, headers=named())
    reply = await api.reply(path, text_body | changes, headers=named())
    assert list(reply["message"]) == ["Idempotency-Key"]
    answer = await api.post("/api/v6/images/text2img", text_body, headers=named())
    assert (answer.status_code, answer.json()["reason"]) == (400, "invalid_request")
    assert len(api.service.jobs) == 1


async def test_secret_of_the_key_is_no_part_of_the_request(api, text_body):
    await api.reply(TEXT2IMG, text_body, headers=named())
    await api.reply(TEXT2IMG, text_body | {"key": "rotated"}, headers=named())
    assert len(api.service.jobs) == 1


async def test_same_value_of_another_key_is_another_job(api, text_body):
    api.service.keys = {"a": "owner-a", "b": "owner-b"}
    for key in "ab":
        await api.reply(TEXT2IMG, text_body | {"key": key}, headers=named())
    assert len(api.service.jobs) == 2


@pytest.mark.parametrize("value", ["x" * 256, "a b"])
async def test_bad_value_is_refused_by_its_name(api, text_body, value):
    reply = await api.reply(TEXT2IMG, text_body, headers=named(value))
    assert list(reply["message"]) == ["Idempotency-Key"]
    assert not api.service.jobs


async def test_client_that_can_repeat_may_leave_without_cancelling(api, text_body):
    api.service.never_answers = True
    call = asyncio.create_task(api.post(TEXT2IMG, text_body, headers=named()))
    await api.service.held.wait()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert [job.state for job in api.service.jobs.values()] == [JobState.QUEUED]
