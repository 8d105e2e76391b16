"""Spans of the engine's phases: each sample of a job has its own, and they fit together."""

import asyncio
from itertools import pairwise

import pytest
import structlog

from serve_app import errors
from serve_app.config import EngineConfig
from serve_app.engine.request import Outcome, Request
from serve_app.models import ModelEntry
from serve_app.pipelines.loader import load_checkpoint
from serve_app.pipelines.painter import WeavePainter
from serve_app.pipelines.phases import record_phases
from serve_app.telemetry import tracing
from serve_app.types import Kind
from tests.spans import CALLER, OTHER, spans

__all__ = ["spans"]

SLACK_NS = 50e6  # each span reads two clocks, between which a busy machine may do something else
CPU = EngineConfig(device="cpu", measure_rows=False)


@pytest.fixture(scope="module")
def painter(folder):
    entry = ModelEntry(id="random", source=folder("plain"), kinds=tuple(Kind), native_size_px=64)
    made = WeavePainter(entry, CPU, load_checkpoint(entry, CPU))
    yield made
    made.close()


async def paint(painter, caller, job_id, spec):
    known = {**tracing.carried(caller), "job_id": job_id}
    with structlog.contextvars.bound_contextvars(**known), tracing.span("paint"):
        return await painter.paint(job_id, spec, None)


async def test_each_sample_has_phases_that_follow_one_another(painter, make_spec, spans):
    await paint(painter, CALLER, 1, make_spec(samples=2))
    (around,) = spans.named("paint")
    for sample in (0, 1):
        phases = [one for one in spans.all() if one.attributes.get("dreamserve.sample") == sample]
        assert [one.name for one in phases] == ["encode", "steps", "decode"]
        for before, after in pairwise(phases):
            assert after.start_time == pytest.approx(before.end_time, abs=SLACK_NS)
        assert around.start_time - SLACK_NS <= phases[0].start_time
        assert phases[-1].end_time <= around.end_time + SLACK_NS
        assert all(one.end_time > one.start_time for one in phases)
        assert {one.parent.span_id for one in phases} == {around.context.span_id}


async def test_jobs_that_share_forwards_keep_their_traces(painter, make_spec, spans):
    await asyncio.gather(
        paint(painter, CALLER, 1, make_spec(seed=1)), paint(painter, OTHER, 2, make_spec(seed=2))
    )
    whole = {"paint": {"encode": {}, "steps": {}, "decode": {}}}
    assert spans.under(CALLER) == spans.under(OTHER) == whole
    for name in ("encode", "steps", "decode"):
        assert {one.attributes["dreamserve.job_id"] for one in spans.named(name)} == {1, 2}


async def test_phases_that_a_job_did_not_come_to_have_no_spans(spans):
    waiting, broken = Request(lambda: None), Request(lambda: None)
    broken.times.began = 1.0
    broken.times.step(2.0, 3.0)
    broken.end(Outcome(error=errors.OutOfMemory()))
    record_phases([waiting, broken])
    assert [one.name for one in spans.all()] == ["encode", "steps"]
