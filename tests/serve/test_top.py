"""The operator's table over a real service."""

import asyncio
import os
import subprocess
import sys

import pytest
import ray

from tests.serve.conftest import MODELS
from tests.serve.test_inpaint import INPAINT, body

pytestmark = pytest.mark.ray


def run_top(*arguments: str) -> list[str]:
    command = [sys.executable, "-c", "from serve_app.cli import main; main()", "top", "--once"]
    done = subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,  # as long as no node has figures the exit code is 1
        env=os.environ | {"COLUMNS": "100"},
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout.splitlines()


def rows_of(lines: list[str]) -> dict[str, list[str]]:
    return {line.split()[0]: line.split() for line in lines if line.strip()}


ONE_EACH = ("Ingress", "Preprocess", "Generator:tiny", "Safety", "Upload", "Janitor")


def is_complete(rows: dict[str, list[str]]) -> bool:
    is_up = rows.get("dreamserve", ["", ""])[1] == "running"
    are_there = rows.keys() >= {*MODELS, ray.nodes()[0]["NodeManagerAddress"]}
    return is_up and are_there and all(rows.get(name, [])[1:3] == ["1", "1"] for name in ONE_EACH)


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_top_shows_models_deployments_and_nodes_of_the_cluster(http):
    assert (await http.post(INPAINT, json=body())).json()["status"] == "success"
    rows: dict[str, list[str]] = {}
    async with asyncio.timeout(200):  # figures come late, at times in parts
        while not is_complete(rows):
            address = ray.get_runtime_context().gcs_address
            rows = rows_of(await asyncio.to_thread(run_top, "--address", address))
