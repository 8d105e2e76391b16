"""The Pool on a real cluster: many models, little memory."""

import asyncio
import contextlib
import time

import numpy as np
import pytest
from ray import serve

from deployments.options import deploy
from deployments.pool import Pool
from deployments.router import router_config
from serve_app import errors
from serve_app.config import AppConfig, DeploymentOptions
from serve_app.models import Catalogue, ModelEntry
from serve_app.types import Kind
from tests.builders import spec
from tests.serve.conftest import TAIL, TAIL_ROOM
from tests.serve.test_inpaint import INPAINT, body, painted
from tests.serve.test_loss import final, progressing
from tests.serve.test_metrics import scrape

pytestmark = pytest.mark.ray
LOAD_S = 0.5
COUNTS = ("dreamserve_pool_loads_total", "dreamserve_pool_evictions_total", "dreamserve_pool_held")
SLOW = {"steps": "30", "width": "256", "height": "256"}


@pytest.fixture(scope="module")
def pool(cluster, tmp_path_factory):
    """Two replicas with fake painters and room for two models each, as an application."""
    kinds = tuple(Kind)
    catalogue = Catalogue(
        ModelEntry(id=model_id, source="no", kinds=kinds, placement="pool") for model_id in "abcd"
    )
    config = AppConfig.model_validate(
        {
            "root_dir": tmp_path_factory.mktemp("pool"),
            "engine": {"painter": "fake", "fake_step_s": 0.1, "fake_load_s": LOAD_S},
            "pool": {
                "memory_bytes": 2,
                "assumed_bytes": 1,
                "spread_calls": 6,
                "max_calls_per_model": 8,
                "stats_period_s": 2,  # for twice as long a caller counts what it sent
            },
        }
    )
    options = DeploymentOptions(min_replicas=2, max_replicas=2, num_cpus=0.1)
    bound = deploy(Pool, options, config, catalogue, router=router_config(config.pool))
    yield serve.run(bound, name="pool", route_prefix=None).options(_by_reference=True)
    serve.delete("pool")


async def paint(pool, model_id, steps=1):
    handle = pool.options(multiplexed_model_id=model_id)
    return await handle.paint.remote(1, spec(model_id=model_id, steps=steps), None)


async def holders(pool) -> dict[str, int]:
    """On how many replicas each model is."""
    told = await pool.broadcast("record_routing_stats").results_async(timeout_s=60)
    held = [model_id for stats in told for model_id in stats["held"]]
    return {model_id: held.count(model_id) for model_id in held}


async def test_requests_go_to_the_replica_that_holds_the_model(pool):
    """In a burst too, when the replicas have not told yet what they load."""
    await asyncio.gather(*(paint(pool, model_id) for model_id in "aabbcc"))
    for model_id in "cab" * 4:
        assert (await paint(pool, model_id)).load_s < LOAD_S
    assert await holders(pool) == {"a": 1, "b": 1, "c": 1}


@pytest.mark.slow
async def test_busy_model_spreads_and_too_many_calls_are_refused(pool):
    # Five seconds each, so that on a slow machine all are there before the first is done.
    calls = [asyncio.ensure_future(paint(pool, "d", steps=50)) for _ in range(20)]
    results = await asyncio.gather(*calls)
    refused = [result.error for result in results if hasattr(result, "error")]
    assert {type(error) for error in refused} == {errors.Overloaded}
    assert len(refused) == 20 - 16
    assert (await holders(pool))["d"] == 2


async def test_unknown_model_is_told(pool):
    result = await paint(pool, "nobody")
    assert isinstance(result.error, errors.ModelNotFound)


async def pool_counts() -> tuple[float, ...]:
    """Loads, evictions and models in memory of the application's Pool, of one scrape."""
    lines = [line for line in (await scrape()).splitlines() if 'application="dreamserve"' in line]
    return tuple(
        sum(float(line.split()[-1]) for line in lines if line.startswith(f"ray_{name}{{"))
        for name in COUNTS
    )


async def begin(http, model_id, seed, **changes):
    asked = body(model_id=model_id, seed=seed, instant_response="yes", **changes)
    return (await http.post(INPAINT, json=asked)).json()["id"]


@pytest.mark.slow
async def test_twelve_requests_for_six_models_with_room_for_two(http, record_property):
    """The show. A painter that is closed in use fails its jobs, so success says none was.

    The first two models are at work for seconds, until the calls of the others wait in turn.
    """
    begun = time.monotonic()
    first, others = list(TAIL)[:TAIL_ROOM], list(TAIL)[TAIL_ROOM:]
    ids = [await begin(http, model_id, seed, **SLOW) for model_id in first for seed in (1, 2)]
    await asyncio.gather(*(progressing(http, job_id) for job_id in ids))
    asked = [(model_id, seed) for seed in (1, 2) for model_id in others]
    ids += await asyncio.gather(*(begin(http, *one) for one in asked))
    answers = [await final(http, job_id) for job_id in ids]
    assert [answer["status"] for answer in answers] == ["success"] * 12, answers
    record_property("all_done_s", time.monotonic() - begun)
    pictures = {np.asarray(await painted(http, answer)).tobytes() for answer in answers}
    assert len(pictures) == 12, "each by its own model and seed"
    expected, counts = (6, 6 - TAIL_ROOM, TAIL_ROOM), ()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(120):  # they are exported some seconds later
            while counts != expected:
                counts = await pool_counts()
                await asyncio.sleep(1)
    assert counts == expected


async def test_model_of_the_pool_is_listed_as_ready(http):
    rows = (await http.post("/api/v4/dreambooth/model_list", json={"key": ""})).json()
    status = {row["model_id"]: row["status"] for row in rows}
    assert {status[model_id] for model_id in TAIL} == {"model_ready"}
