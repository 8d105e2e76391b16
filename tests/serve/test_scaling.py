"""From no replica to several and back, by the work: nothing is lost on the way."""

import asyncio
import itertools
import time

import pytest
from ray import serve

from deployments.generator import Generator
from deployments.options import deploy
from serve_app.config import AppConfig, DeploymentOptions
from serve_app.models import Catalogue, ModelEntry
from serve_app.types import Kind
from tests.builders import spec

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]
APP = "scaling"
BURST = 50


@pytest.fixture
def generator(cluster, tmp_path):
    """A hot model that may have no replica, with a fake painter: a job takes a second."""
    entry = ModelEntry(id="tiny", source="no", kinds=tuple(Kind))
    config = AppConfig.model_validate(
        {"root_dir": tmp_path, "engine": {"painter": "fake", "fake_step_s": 0.05}}
    )
    options = DeploymentOptions(
        min_replicas=0,
        max_replicas=2,
        max_ongoing_requests=8,
        scaling="work",
        target_wait_s=1,
        upscale_delay_s=1,
        downscale_delay_s=3,
    )
    bound = deploy(Generator, options, entry, Catalogue([entry]), config)
    yield serve.run(bound, name=APP, route_prefix=None).options(_by_reference=True)
    serve.delete(APP)


async def paint(generator, number):
    return await generator.paint.remote(number, spec(steps=20), None)


async def num_running():
    status = await asyncio.to_thread(serve.status)
    (deployment,) = status.applications[APP].deployments.values()
    return deployment.replica_states.get("RUNNING", 0)


async def until_running(*wanted):
    """Wait until so many replicas run; several numbers, where nobody may see each of them."""
    begun = time.monotonic()
    async with asyncio.timeout(150):
        while await num_running() not in wanted:
            await asyncio.sleep(0.1)
    return time.monotonic() - begun


async def busy(generator, numbers, until):
    """Send job after job, each when the one before is done."""
    results = []
    while not results or not until.is_set():
        results.append(await paint(generator, next(numbers)))
    return results


async def test_burst_from_zero_is_served_and_nothing_lost_on_the_way_down(
    generator, record_property
):
    await until_running(0)
    numbers, is_enough, begun = itertools.count(), asyncio.Event(), time.monotonic()
    callers = [asyncio.ensure_future(busy(generator, numbers, is_enough)) for _ in range(BURST)]
    await until_running(1, 2)
    record_property("first_replica_s", time.monotonic() - begun)
    await until_running(2)
    record_property("second_replica_s", time.monotonic() - begun)
    is_enough.set()
    results = [result for part in await asyncio.gather(*callers) for result in part]
    while await num_running() == 2:  # one at a time: they land on both until one has gone
        results.append(await paint(generator, next(numbers)))
        await asyncio.sleep(1)  # at work half of the time, which one replica is enough for
    record_property("num_jobs", len(results))
    assert {len(result.pictures) for result in results} == {1}
    record_property("to_zero_s", await until_running(0))
    assert len((await paint(generator, next(numbers))).pictures) == 1
