"""A canary on a real cluster: begun, compared, rolled back and promoted while calls come in."""

import asyncio

import pytest

from tests.serve.test_loss import final
from tests.serve.test_registry import OPERATOR, picture, post

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(560)]

PATH = "/admin/models/tried/canary"
PLAIN = {"enhance_prompt": "no"}  # the words are the entry's


def entry(source):
    return {
        "id": "tried",
        "source": f"checkpoints/{source}",
        "kinds": ["text2img"],
        "placement": "pool",
        "native_size_px": 64,
    }


async def painted_as(http, source):
    """Wait until the model paints as another one of the Pool does."""
    wanted = await picture(http, model_id=source, **PLAIN)
    async with asyncio.timeout(60):  # each process looks at the catalogue every few seconds
        while await picture(http, model_id="tried", **PLAIN) != wanted:
            await asyncio.sleep(0.2)


async def test_no_call_fails_while_a_canary_comes_goes_and_is_promoted(http):
    await http.post("/admin/models", json=entry("tail-1"), headers=OPERATOR)
    await painted_as(http, "tail-1")
    calls: list[dict] = []
    is_over = asyncio.Event()

    async def call():
        while not is_over.is_set():
            answer = await post(http, model_id="tried", seed=len(calls), **PLAIN)
            if answer["status"] == "processing":
                answer = await final(http, answer["id"])
            calls.append(answer)

    callers = [asyncio.create_task(call()) for _ in range(2)]
    try:
        for end in (http.delete(PATH, headers=OPERATOR), None):
            begun = {"share": 100, "entry": entry("tail-2")}
            answer = await http.put(PATH, json=begun, headers=OPERATOR)
            assert answer.status_code == 200, answer.text
            await painted_as(http, "tail-2")
            shown = (await http.get(PATH, headers=OPERATOR)).json()
            assert shown["canary"]["succeeded"] > 0
            assert shown["canary"]["error_rate"] == 0.0
            assert shown["canary"]["run_s"] > 0
            ended = await (end or http.post(f"{PATH}/promote", headers=OPERATOR))
            assert ended.status_code == 204
            await painted_as(http, "tail-1" if end else "tail-2")
    finally:
        is_over.set()
        await asyncio.gather(*callers)
    assert {answer["status"] for answer in calls} == {"success"}, calls
    assert {answer["meta"]["model_id"] for answer in calls} == {"tried"}
    await http.delete("/admin/models/tried", headers=OPERATOR)
