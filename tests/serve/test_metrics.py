"""What Prometheus would scrape."""

import asyncio

import httpx2
import pytest
import ray

from serve_app.telemetry import metrics
from tests.serve.test_inpaint import INPAINT, body

pytestmark = pytest.mark.ray


async def scrape() -> str:
    port = ray.nodes()[0]["MetricsExportPort"]
    async with httpx2.AsyncClient(trust_env=False) as prometheus:
        return (await prometheus.get(f"http://127.0.0.1:{port}/metrics")).text


@pytest.mark.timeout(120)
async def test_engine_metrics_are_exported_under_their_names(http):
    assert (await http.post(INPAINT, json=body())).json()["status"] == "success"
    wanted = {f"ray_{m.name}" for m in (*metrics.ENGINE, *metrics.JOBS)}
    wanted -= {  # counters appear with their first event
        "ray_dreamserve_engine_failed_total",
        "ray_dreamserve_engine_cancelled_total",
        "ray_dreamserve_engine_out_of_memory_total",
        "ray_dreamserve_jobs_open",
    }
    async with asyncio.timeout(60):
        while missing := {name for name in wanted if f"{name}{{" not in (page := await scrape())}:
            await asyncio.sleep(2)
    assert not missing
    assert 'model_id="tiny"' in page
