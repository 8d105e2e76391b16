"""A share of the jobs of a model goes to its canary; clients see the model."""

import pytest

from serve_app.api.replies.meta import meta
from serve_app.jobs.protocol import Idempotency
from serve_app.models.revision import canary_id
from serve_app.types import JobState
from tests.builders import job_request, spec
from tests.unit.models.test_canary import model
from tests.unit.service.test_generation import Bench


@pytest.fixture
async def bench():
    bench = Bench(models=[model("other")], hold_s=0)
    await bench.models.put(model())
    await bench.models.begin_canary(model(source="new"), 100)
    await bench.view.refresh()
    bench.driver.start()
    yield bench
    await bench.driver.close()


def request(model_id="late", **changes):
    return job_request(spec=spec(model_id=model_id), **changes)


async def done(bench, job):
    return await bench.service.wait(job.id, 5, cancel_if_left=False)


async def test_jobs_of_the_model_go_to_the_canary_and_others_do_not(bench):
    for model_id, painted in (("late", canary_id("late")), ("other", "other")):
        job = await done(bench, await bench.service.accept(request(model_id)))
        assert job.state is JobState.SUCCESS
        assert job.request.spec.model_id == painted


async def test_client_sees_the_model_that_it_asked_for(bench):
    job = await done(bench, await bench.service.accept(request()))
    assert meta(job)["model_id"] == "late"


async def test_share_of_nothing_sends_nobody(bench):
    await bench.models.share_canary("late", 0)
    await bench.view.refresh()
    job = await bench.service.accept(request())
    assert job.request.spec.model_id == "late"


async def test_repeated_call_gets_the_job_of_the_first_whatever_is_drawn(bench):
    named = Idempotency("mine", "digest")
    first = await bench.service.accept(request(), named)
    await bench.models.share_canary("late", 0)
    await bench.view.refresh()
    again = await bench.service.accept(request(), named)
    assert again.id == first.id
    assert again.request.spec.model_id == canary_id("late")


async def test_queue_is_one_for_both_revisions(bench):
    await bench.driver.close()
    jobs = []
    for share in (100, 0, 100):
        await bench.models.share_canary("late", share)
        await bench.view.refresh()
        painted = bench.service.catalogue.draw("late", 0.5)
        jobs.append(await bench.jobs.add(request(painted), 10))
    places = [await bench.service.queue_place(job) for job in jobs]
    assert places == [1, 2, 3]


async def test_without_a_pool_no_job_goes_to_a_canary():
    bench = Bench(models=[model("late", placement="own")])
    await bench.models.begin_canary(model(source="new"), 100)
    await bench.view.refresh()
    bench.driver.start()
    job = await bench.service.accept(request())
    assert job.request.spec.model_id == "late"
    await bench.driver.close()
