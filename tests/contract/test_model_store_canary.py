"""What holds for the canaries of every `ModelStore`, and for the jobs that go to them."""

import json

import pytest
from sqlalchemy import text

from serve_app import errors
from serve_app.jobs.rules import KeyRules
from serve_app.models.canary import Score
from serve_app.models.revision import canary_id
from serve_app.types import JobFailure, JobResult
from tests.builders import job_request, spec
from tests.contract.test_model_store import model

NEW = model(source="weights/new")
FAILURE = JobFailure(code="generation_failed", message="no")


def result(name="generations/a.png"):
    return JobResult(keys=(name,), nsfw=(False,), generation_time_s=1.0)


def for_canary(model_id="sd"):
    return {"spec": spec(model_id=canary_id(model_id))}


async def test_canary_is_kept_with_its_share(bench):
    await bench.models.put(model())
    assert await bench.models.canaries() == []
    version = await bench.models.version()
    await bench.models.begin_canary(NEW, 12.5)
    assert await bench.models.version() > version
    await bench.reopen()
    (canary,) = await bench.models.canaries()
    assert (canary.entry, canary.share) == (NEW, 12.5)
    assert await bench.models.share_canary("sd", 50)
    (shared,) = await bench.models.canaries()
    assert (shared.share, shared.since) == (50, canary.since)
    assert not await bench.models.share_canary("other", 50)
    assert await bench.models.entries() == [model()]


async def test_other_canary_of_a_model_begins_anew(bench):
    await bench.models.begin_canary(NEW, 10)
    (first,) = await bench.models.canaries()
    await bench.advance(100)
    await bench.models.begin_canary(model(source="weights/newer"), 20)
    (second,) = await bench.models.canaries()
    assert (str(second.entry.source), second.share) == ("weights/newer", 20)
    assert second.since >= first.since


async def test_promoted_canary_is_the_models_entry(bench):
    await bench.models.put(model())
    await bench.models.begin_canary(NEW, 10)
    version = await bench.models.version()
    assert await bench.models.promote_canary("sd")
    assert await bench.models.entries() == [NEW]
    assert await bench.models.canaries() == []
    assert await bench.models.version() > version
    assert not await bench.models.promote_canary("sd")


async def test_ended_canary_leaves_the_model_as_it_was(bench):
    await bench.models.put(model())
    await bench.models.begin_canary(NEW, 10)
    version = await bench.models.version()
    assert await bench.models.end_canary("sd")
    assert await bench.models.version() > version
    assert not await bench.models.end_canary("sd")
    assert (await bench.models.entries(), await bench.models.canaries()) == ([model()], [])


async def test_canary_goes_with_its_model(bench):
    await bench.models.put(model())
    await bench.models.begin_canary(NEW, 10)
    await bench.models.remove("sd")
    assert await bench.models.canaries() == []


@pytest.mark.parametrize("change", ["put", "promote_canary"])
async def test_revision_that_was_asked_for_goes_with_the_entry_that_it_was_of(bench, change):
    """Otherwise the new entry would be loaded in a revision of the old one."""
    await bench.models.put(model(source={"hub": "acme/sd"}))
    await bench.models.advance("sd", "v1")
    new = model(source={"hub": "acme/sd", "revision": "v2"})
    if change == "put":
        await bench.models.put(new)
    else:
        await bench.models.begin_canary(new, 10)
        await bench.models.promote_canary("sd")
    wanted = (await bench.models.desired(["sd"]))["sd"]
    assert (wanted.weights_version, wanted.revision) == (1, None)


async def test_job_stays_with_its_revision_over_retries_and_restarts(bench):
    accepted = await bench.job(**for_canary())
    for _ in range(2):
        await bench.reopen()
        (job,) = await bench.jobs.claim("a", 10.0, 5)
        assert job.request == accepted.request
        assert job.request.spec.model_id == canary_id("sd")
        await bench.jobs.release("a", [job.id])
    assert (await bench.jobs.get(accepted.id)).request.spec.model_id == canary_id("sd")


async def test_queue_and_costs_know_the_models_id_only(bench):
    job = await bench.claimed(**for_canary())
    assert await bench.jobs.count_open() == {"sd": 1}
    assert (await bench.jobs.waiting("sd")).job_ids == [job.id]
    await bench.jobs.succeed("a", job.id, result())
    month = await bench.usage.this_month()
    assert [row.model_id for row in await bench.usage.usage(month)] == ["sd"]


async def test_key_that_may_use_the_model_may_use_its_canary_and_no_other(bench):
    request = job_request(**for_canary())
    await bench.jobs.add(request, 10, KeyRules(models=("sd",)))
    with pytest.raises(errors.NotAllowed, match=r"the model sd\."):
        await bench.jobs.add(request, 10, KeyRules(models=("other",)))


@pytest.mark.slow
@pytest.mark.parametrize("end", ["end_canary", "promote_canary", "begin_canary"])
async def test_open_jobs_of_a_canary_that_ends_go_to_the_model(bench, end):
    await bench.models.begin_canary(NEW, 100)
    done = await bench.claimed(**for_canary())
    await bench.jobs.succeed("a", done.id, result())
    waiting, other = await bench.job(**for_canary()), await bench.job(**for_canary("other"))
    await getattr(bench.models, end)(*((NEW, 10) if end == "begin_canary" else ("sd",)))
    ids = {job.id: job.request.spec.model_id for job in await bench.jobs.claim("a", 10.0, 5)}
    assert ids == {waiting.id: "sd", other.id: canary_id("other")}
    assert (await bench.jobs.get(done.id)).request.spec.model_id == canary_id("sd")


async def test_scores_compare_the_jobs_since_the_canary_began(bench):
    async def ended(end, **changes):
        job = await bench.claimed(**changes)
        await bench.advance(2)
        await end(job)

    async def good(job):
        await bench.jobs.succeed("a", job.id, result())

    async def bad(job):
        await bench.jobs.fail("a", job.id, FAILURE)

    await ended(bad, spec=spec(model_id="sd"))  # before it began
    await bench.advance(5)
    await bench.models.begin_canary(NEW, 50)
    assert (await bench.models.canaries())[0].since
    for _ in range(2):
        await ended(good, spec=spec(model_id="sd"))
    for end in (good, bad, bad):
        await ended(end, **for_canary())
    await ended(bad, **for_canary("other"))
    await bench.jobs.cancel((await bench.job(spec=spec(model_id="sd"))).id)
    await bench.job(**for_canary())  # still open
    (canary,) = await bench.models.canaries()
    scores = await bench.models.scores("sd", canary.since)
    assert scores.model.model_dump(exclude={"run_s"}) == {
        "succeeded": 2,
        "failed": 0,
        "cancelled": 1,
    }
    assert (scores.canary.succeeded, scores.canary.failed) == (1, 2)
    assert scores.canary.error_rate == pytest.approx(2 / 3)
    assert 2.0 <= scores.model.run_s < 12.0
    assert await bench.models.scores("nobody", 0.0) == scores.model_copy(
        update={"model": Score(), "canary": Score()}
    )


async def test_programs_that_know_no_canaries_read_the_models_id(bench):
    """They run such a job by the model itself."""
    if not hasattr(bench, "config"):
        pytest.skip("only databases are shared with them")
    job = await bench.job(**for_canary())
    rows = await bench.jobs.database.read(
        lambda link: link.execute(text("SELECT model_id, request FROM jobs")).all()
    )
    assert [(row.model_id, json.loads(row.request)["spec"]["model_id"]) for row in rows] == [
        ("sd", "sd")
    ]
    assert job.id
