"""One job's lines, from all the processes that worked on it."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from tests.serve.test_inpaint import INPAINT, body

pytestmark = pytest.mark.ray

STAGES = {"Preprocess.prepare", "Generator.paint", "Safety.check", "Upload.store"}


def lines() -> Iterator[dict]:
    """All JSON lines of this cluster's workers that are written to their end."""
    logs = Path(ray._private.worker._global_node.get_logs_dir_path())
    for file in logs.glob("worker-*.err"):
        for line in file.read_text(errors="replace").splitlines(keepends=True):
            if line.startswith("{") and line.endswith("\n"):
                yield json.loads(line)


async def lines_of_call(call_id: str) -> list[dict]:
    async with asyncio.timeout(60):
        while True:
            found = [line for line in lines() if line.get("call_id") == call_id]
            if {"job_settled", "http_request"} <= {line["event"] for line in found}:
                return found
            await asyncio.sleep(0.2)


async def test_every_stage_names_job_model_and_request(http):
    sent = {"x-request-id": "find-me-1"}
    answer = await http.post(INPAINT, json=body(safety_checker="yes"), headers=sent)
    assert answer.json()["status"] == "success"
    assert answer.headers.get_list("x-request-id") == ["find-me-1"]
    found = await lines_of_call("find-me-1")
    done = [line for line in found if line["event"] == "stage_done"]
    assert {line["stage"] for line in done} == STAGES
    assert {line["outcome"] for line in done} == {"success"}
    of_job = [line for line in found if line["event"] != "http_request"]
    assert {line["job_id"] for line in of_job} == {answer.json()["id"]}
    assert {line["model_id"] for line in of_job} == {"tiny"}


async def test_failed_stage_is_told_with_its_code(http):
    asked = body(init_image="http://127.0.0.1:1/x.png")
    await http.post(INPAINT, json=asked, headers={"x-request-id": "find-me-2"})
    async with asyncio.timeout(60):
        while not (found := [line for line in lines() if line.get("call_id") == "find-me-2"]):
            await asyncio.sleep(0.2)
    done = [line for line in found if line["event"] == "stage_done"]
    assert [line["outcome"] for line in done] == ["invalid_image"]
