"""One trace over all processes of a real cluster, as a collector gets it."""

import asyncio

import pytest

from tests.serve.test_inpaint import INPAINT, body
from tests.spans import CALLER
from tests.webhook_receiver import Receiver

pytestmark = pytest.mark.ray

TRACE, CALLERS_SPAN = CALLER.split("-")[1:3]
# By the span that each is under.
TREE = {
    f"POST {INPAINT}": None,
    "accept": f"POST {INPAINT}",
    "job": f"POST {INPAINT}",
    "Preprocess.prepare": "job",
    "Generator.paint": "job",
    "encode": "Generator.paint",
    "steps": "Generator.paint",
    "decode": "Generator.paint",
    "Safety.check": "job",
    "Upload.store": "job",
    "settle": f"POST {INPAINT}",
    "webhook": f"POST {INPAINT}",
}


async def test_trace_goes_through_every_process(http, collector):
    hook = Receiver()
    try:
        asked = body(safety_checker="yes", webhook=hook.url)
        answer = await http.post(INPAINT, json=asked, headers={"traceparent": CALLER})
        assert answer.json()["status"] == "success"
        found = await asyncio.to_thread(collector.wait_for, TRACE, set(TREE))
    finally:
        hook.close()
    names = {span.span_id: span.name for span in found}
    assert {span.name: names.get(span.parent_id) for span in found} == TREE
    (call,) = (span for span in found if span.name == f"POST {INPAINT}")
    assert call.parent_id == CALLERS_SPAN
    of_job = [span for span in found if span.name in ("job", "encode", "steps", "Upload.store")]
    assert {span.attributes["dreamserve.job_id"] for span in of_job} == {answer.json()["id"]}
    assert {span.attributes["dreamserve.model_id"] for span in of_job} == {"tiny"}
    processes = {span.resource["service.instance.id"] for span in found}
    assert len(processes) == 6  # ingress, preprocess, generator, safety, upload, janitor
    assert {span.status for span in found} == {0}
