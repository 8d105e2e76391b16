"""`dreamserve deploy` under load: of settings, of a model, of a model that does not start.

Each model takes `LOAD_S` to load, so a replica that stops before the next one is ready shows as a
pause that is longer than that.
"""

import asyncio
import contextlib
import itertools
import logging
import math
import re
import sqlite3
import time

import httpx2
import pytest
import yaml

from serve_app.cli.demo import free_port
from serve_app.cli.serving import service
from tests.ops.test_deploy import DREAMSERVE, answers, call, replicas, token_of, until
from tests.serve.test_applications import (
    SERVICE,
    SMALL,
    Installation,
    ask,
    entry,
    write_weights,
)
from tests.serve.test_loss import final

pytestmark = [pytest.mark.ops, pytest.mark.ray, pytest.mark.timeout(900)]

_log = logging.getLogger(__name__)  # figures: --log-cli-level=INFO
LOAD_S = 15.0
CALLERS = 3
SLOW_STEPS = "80"  # of 0.1 s
AROUND_S = 10
PARTS = ("stage-preprocess", "stage-safety", "stage-upload", "stage-pool", "model-first")


def change(installed, **sections):
    """Change settings in the file that the operator keeps."""
    file = yaml.safe_load(installed.file.read_text())
    args = file["applications"][0]["args"]
    for name, values in sections.items():
        args[name] = {**args.get(name, {}), **values}
    installed.file.write_text(yaml.safe_dump(file))


def rename(installed, model_id, **changes):
    path = installed.folder / "models" / f"{model_id}.yaml"
    path.write_text(yaml.safe_dump(entry(model_id, **changes)))


def deploy(installed):
    address = re.search(r"dashboard at .*?(127\.0\.0\.1:\d+)", installed.log.read_text())
    command = "deploy", str(installed.file), "--address", f"http://{address[1]}"
    return call(DREAMSERVE, *command, **token_of(installed))


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """In parts by the first deploy, which finds the service in one application."""
    installed = Installation(tmp_path_factory.mktemp("rollout"), free_port())
    change(installed, engine={"fake_load_s": LOAD_S}, pool={"turn_s": 0}, serving={"pool": SMALL})
    rename(installed, "tail", placement="pool")
    write_weights(installed.folder / "tail", 0)
    port = installed.port
    with (
        installed.log.open("wb") as log,
        service(installed.file, "127.0.0.1", port, log, has_dashboard=True),
        httpx2.Client(base_url=installed.base_url, timeout=60, trust_env=False) as http,
    ):
        until(lambda: answers(http, "first"))
        done = deploy(installed)
        assert done.returncode == 0, done.stdout + done.stderr
        until(lambda: answers(http, "first"))
        yield installed


class Traffic:
    """Callers who wait, one call after another, and one who looks later for a long job.

    came: when those who wait had an answer. refused: answers that are no success.
    """

    def __init__(self):
        self.came = []
        self.refused = []

    async def call(self, http, model_id):
        while True:
            try:
                answer = await ask(http, model_id, seed=len(self.came))
            except (httpx2.HTTPError, ValueError) as exc:
                answer = {"status": type(exc).__name__}
            self.came.append(time.monotonic())
            if answer["status"] != "success":
                self.refused.append(answer)

    async def order(self, http, model_id):
        while True:
            taken = await ask(http, model_id, steps=SLOW_STEPS, instant_response="yes")
            answer = await final(http, taken["id"])
            if answer["status"] != "success":
                self.refused.append(answer)

    def longest_pause_s(self):
        ends = [*self.came, time.monotonic()]
        pauses = (after - before for before, after in itertools.pairwise(ends))
        return max(pauses, default=math.inf)


@contextlib.asynccontextmanager
async def traffic(installed, model_id):
    """Have the model called, for `AROUND_S` before the block and after it too."""
    seen = Traffic()
    async with (
        httpx2.AsyncClient(base_url=installed.base_url, timeout=90, trust_env=False) as http,
        asyncio.TaskGroup() as callers,
    ):
        await ask(http, model_id)  # the Pool loads it
        tasks = [callers.create_task(seen.call(http, model_id)) for _ in range(CALLERS)]
        tasks.append(callers.create_task(seen.order(http, model_id)))
        await asyncio.sleep(AROUND_S)
        _log.info("longest pause before the deploy %.2f s", seen.longest_pause_s())
        yield seen
        await asyncio.sleep(AROUND_S)
        for task in tasks:
            task.cancel()


def begun_again(installed):
    """Jobs that were painted more than once."""
    with contextlib.closing(sqlite3.connect(installed.folder / "var" / "dreamserve.db")) as jobs:
        return jobs.execute("SELECT id, state FROM jobs WHERE attempts > 1").fetchall()


async def deploy_under(installed, model_id):
    """Deploy while calls come; return what the command said and what the callers saw."""
    async with traffic(installed, model_id) as seen:
        done = await asyncio.to_thread(deploy, installed)
    _log.info("%d pictures, longest pause %.2f s", len(seen.came), seen.longest_pause_s())
    assert seen.refused == []
    assert begun_again(installed) == []
    assert seen.longest_pause_s() < LOAD_S
    return done


@pytest.mark.parametrize("model_id", ["first", "tail"])
async def test_settings_change_without_a_pause_or_a_new_painter(installed, model_id):
    painters = {part: replicas(part) for part in PARTS}
    ingress = replicas(SERVICE)
    assert all(painters.values())
    change(installed, jobs={"hold_s": 40 if model_id == "first" else 50})
    done = await deploy_under(installed, model_id)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {part: replicas(part) for part in PARTS} == painters
    assert not replicas(SERVICE) & ingress


async def test_model_changes_without_a_pause(installed):
    others = {part: replicas(part) for part in PARTS[:3]}
    before = replicas("model-first")
    rename(installed, "first", name="renamed")
    done = await deploy_under(installed, "first")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not replicas("model-first") & before
    assert {part: replicas(part) for part in others} == others


async def test_model_that_does_not_start_leaves_the_old_one(installed):
    before = replicas("model-first")
    write_weights(installed.folder / "broken", 0)
    (installed.folder / "broken" / "unet" / "w.safetensors").write_text("no weights")
    rename(installed, "first", source="broken")
    try:
        done = await deploy_under(installed, "first")
    finally:
        rename(installed, "first", name="renamed")
    assert done.returncode == 1
    assert "model-first did not start" in done.stderr
    assert "Traceback" not in done.stderr
    assert "going back" in done.stdout
    assert replicas("model-first") == before
    assert deploy(installed).returncode == 0
    assert replicas("model-first") == before
