"""What Prometheus would scrape."""

import asyncio
import contextlib

import httpx2
import pytest
import ray

from serve_app.telemetry import metrics
from tests.meta.test_observability import expressions, names
from tests.serve.test_inpaint import INPAINT, body

pytestmark = pytest.mark.ray


async def scrape() -> str:
    port = ray.nodes()[0]["MetricsExportPort"]
    async with httpx2.AsyncClient(trust_env=False, timeout=60) as prometheus:
        return (await prometheus.get(f"http://127.0.0.1:{port}/metrics")).text


@pytest.mark.timeout(300)
async def test_engine_metrics_are_exported_under_their_names(http):
    assert (await http.post(INPAINT, json=body())).json()["status"] == "success"
    wanted = {
        f"ray_{m.name}"
        for m in (
            *metrics.ENGINE,
            *metrics.RELOAD,
            *metrics.JOBS,
            *metrics.PARTS,
            *metrics.USAGE,
            *metrics.WEBHOOKS,
        )
    }
    wanted = set().union(wanted, *map(names, expressions().values()))
    wanted = {name for name in wanted if not name.startswith("ray_dreamserve_pool_")}
    wanted -= {  # by a label that comes with the first event; the last three with a GPU
        "ray_dreamserve_picture_workers_lost_total",
        "ray_dreamserve_jobs_open",
        "ray_serve_health_check_failures_total",
        "ray_node_gpus_utilization",
        "ray_node_gram_available",
        "ray_node_gram_used",
    }
    missing, page = wanted, ""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(150):
            while missing := {name for name in missing if f"{name}{{" not in page}:
                await asyncio.sleep(2)
                page = await scrape()
    assert missing == set()
    assert 'model_id="tiny"' in page
