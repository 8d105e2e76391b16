"""Which jobs every `JobStore` accepts: limits per key, repeats of a call."""

import asyncio

import pytest

from serve_app import errors
from serve_app.jobs.protocol import Idempotency
from serve_app.jobs.rules import Feature, KeyRules
from serve_app.types import JobResult, Kind, LoraUse, OutputPlan
from tests.builders import job_request, spec

FIRST = Idempotency("order-7", "digest-a", ttl_s=100)
ONE = KeyRules(max_open=1)
OTHER = Idempotency("order-7", "digest-b", ttl_s=100)


async def add(bench, idempotency=None, **changes):
    return await bench.jobs.add(job_request(**changes), 100, None, idempotency)


@pytest.mark.slow
async def test_repeat_returns_the_first_job(bench):
    first = await add(bench, FIRST)
    again = await add(bench, FIRST, track_id="ignored")
    assert again == first
    assert await bench.jobs.admit("open", 100, None, FIRST) == first
    assert sum((await bench.jobs.count_open()).values()) == 1


async def test_repeat_of_a_final_job_returns_it(bench):
    first = await add(bench, FIRST)
    await bench.jobs.cancel(first.id)
    assert await add(bench, FIRST) == await bench.jobs.get(first.id)


async def test_repeat_is_answered_although_all_places_are_taken(bench):
    first = await add(bench, FIRST)
    assert await bench.jobs.add(job_request(), 1, ONE, FIRST) == first


async def test_same_idempotency_key_with_another_request_is_refused(bench):
    await add(bench, FIRST)
    with pytest.raises(errors.InvalidRequest) as caught:
        await add(bench, OTHER)
    assert caught.value.field == "Idempotency-Key"
    with pytest.raises(errors.InvalidRequest):
        await bench.jobs.admit("open", 100, None, OTHER)


async def test_same_idempotency_key_of_another_api_key_is_another_job(bench):
    first = await add(bench, FIRST, key_id="key_a")
    second = await add(bench, OTHER, key_id="key_b")
    assert first.id != second.id


async def test_idempotency_key_after_its_time_names_a_new_job(bench):
    first = await add(bench, FIRST)
    await bench.advance(99)
    assert (await add(bench, FIRST)).id == first.id
    await bench.advance(2)
    second = await add(bench, OTHER)
    assert second.id != first.id
    assert (await add(bench, OTHER)).id == second.id


async def test_eight_equal_calls_at_once_make_one_job(bench):
    jobs = await asyncio.gather(*(add(bench, FIRST) for _ in range(8)))
    assert len({job.id for job in jobs}) == 1
    assert sum((await bench.jobs.count_open()).values()) == 1


async def test_calls_without_idempotency_key_are_all_different(bench):
    jobs = await asyncio.gather(*(add(bench) for _ in range(8)))
    assert len({job.id for job in jobs}) == 8


async def test_job_beyond_the_places_of_its_key_is_refused_until_one_is_free(bench):
    first = await bench.jobs.add(job_request(key_id="key_a"), 100, ONE)
    assert await bench.jobs.add(job_request(key_id="key_b"), 100, ONE)
    with pytest.raises(errors.TooManyOpen) as caught:
        await bench.jobs.admit("key_a", 100, ONE)
    assert (caught.value.limit, caught.value.num_open) == (1, 1)
    with pytest.raises(errors.TooManyOpen) as caught:
        await bench.jobs.add(job_request(key_id="key_a"), 100, ONE)
    assert (caught.value.limit, caught.value.num_open) == (1, 1)
    assert caught.value.retry_after_s > 0
    await bench.jobs.cancel(first.id)
    assert await bench.jobs.add(job_request(key_id="key_a"), 100, ONE)


async def test_many_at_once_keep_the_places_of_their_key(bench):
    async def accept(key_id):
        try:
            return await bench.jobs.add(job_request(key_id=key_id), 100, KeyRules(max_open=5))
        except errors.RateLimited:
            return None

    answers = await asyncio.gather(*(accept(f"key_{n % 2}") for n in range(24)))
    owners = [job.request.key_id for job in answers if job]
    assert sorted(owners) == ["key_0"] * 5 + ["key_1"] * 5


async def test_admit_says_what_add_would_and_keeps_nothing(bench):
    assert await bench.jobs.admit("open", 1, ONE, FIRST) is None
    await add(bench)
    with pytest.raises(errors.Overloaded):
        await bench.jobs.admit("open", 1, None, FIRST)
    assert await bench.jobs.admit("open", 2, None, FIRST) is None


async def mine(bench, key_id, **changes):
    return await bench.jobs.add(job_request(key_id=key_id, **changes), 100, KeyRules())


async def refused(bench, key_id, error, **changes):
    with pytest.raises(error) as caught:
        await mine(bench, key_id, **changes)
    return caught.value


async def test_rules_of_a_key_go_before_those_of_all(bench):
    key, _ = await bench.keys.create("narrow", KeyRules(max_open=1))
    await bench.jobs.add(job_request(key_id=key.id), 100, KeyRules(max_open=5))
    with pytest.raises(errors.RateLimited):
        await bench.jobs.add(job_request(key_id=key.id), 100, KeyRules(max_open=5))
    await bench.keys.change(key.id, KeyRules(max_open=2))
    await bench.jobs.add(job_request(key_id=key.id), 100, KeyRules(max_open=1))
    await bench.jobs.add(job_request(key_id=key.id), 100)  # nobody is told apart


async def test_rate_counts_what_was_accepted_within_a_minute(bench):
    key, _ = await bench.keys.create("slow", KeyRules(requests_per_minute=2))
    await mine(bench, key.id)
    await bench.advance(20)
    await bench.jobs.cancel((await mine(bench, key.id)).id)
    error = await refused(bench, key.id, errors.RateLimited)
    assert error.retry_after_s == pytest.approx(40, abs=10)
    with pytest.raises(errors.RateLimited):
        await bench.jobs.admit(key.id, 100, KeyRules())
    await mine(bench, "key_other")
    await bench.advance(41)
    await mine(bench, key.id)
    assert (await refused(bench, key.id, errors.RateLimited)).retry_after_s > 10


async def test_default_rate_holds_for_keys_without_one(bench):
    rules = KeyRules(requests_per_minute=1)
    await bench.jobs.add(job_request(key_id="key_a"), 100, rules)
    with pytest.raises(errors.RateLimited):
        await bench.jobs.add(job_request(key_id="key_a"), 100, rules)
    await bench.jobs.add(job_request(key_id="key_b"), 100, rules)


async def test_month_counts_pictures_that_were_made_and_those_to_come(bench):
    key, _ = await bench.keys.create("small", KeyRules(monthly_pictures=5))
    two = {"spec": spec(samples=2)}
    first = await mine(bench, key.id, **two)
    await bench.jobs.claim("a", 10, 5)
    keys = ("generations/a.png", "generations/b.png")
    assert await bench.jobs.succeed(
        "a", first.id, JobResult(keys=keys, nsfw=(False, False), generation_time_s=1)
    )
    second = await mine(bench, key.id, **two)
    error = await refused(bench, key.id, errors.MonthlyLimit, **two)
    assert (error.status, error.public_message) == (429, "Your monthly limit exceeded")
    await mine(bench, key.id)
    with pytest.raises(errors.MonthlyLimit):
        await bench.jobs.admit(key.id, 100, KeyRules())
    await bench.jobs.cancel(second.id)  # what is not made is not counted
    await mine(bench, key.id, **two)
    await mine(bench, "key_other", **two)


async def test_many_at_once_keep_the_month_of_their_key(bench):
    key, _ = await bench.keys.create("small", KeyRules(monthly_pictures=5))

    async def accept():
        try:
            return await mine(bench, key.id)
        except errors.MonthlyLimit:
            return None

    answers = await asyncio.gather(*(accept() for _ in range(12)))
    assert sum(job is not None for job in answers) == 5


async def test_key_may_use_its_models_and_features_only(bench):
    rules = KeyRules(models=("tiny",), features=(Feature.TEXT2IMG, Feature.LORA))
    key, _ = await bench.keys.create("few", rules)
    lora = {"loras": (LoraUse(id="ink", strength=1),)}
    await mine(bench, key.id, spec=spec(**lora))
    other = await refused(bench, key.id, errors.NotAllowed, spec=spec(model_id="other"))
    assert "other" in other.public_message
    hook = await refused(bench, key.id, errors.NotAllowed, webhook="http://x/")
    assert hook.public_message == "This API key may not use webhook."
    for changes in ({"kind": Kind.INPAINT}, {"upscale": 2}, {"vae": "warm"}, {"panorama": True}):
        await refused(bench, key.id, errors.NotAllowed, spec=spec(**changes))
    nothing, _ = await bench.keys.create("none", KeyRules(features=()))
    await refused(bench, nothing.id, errors.NotAllowed)


async def test_results_of_a_key_with_a_prefix_are_kept_under_it(bench):
    key, _ = await bench.keys.create("acme", KeyRules(storage_prefix="customers/acme"))
    output = OutputPlan(keys=("generations/0-a.png",), hint_keys=("temp/0-h.png",))
    request = job_request(key_id=key.id, output=output)
    job = await bench.jobs.add(request, 100, KeyRules())
    assert job.request.output.files == (
        "generations/customers/acme/0-a.png",
        "temp/customers/acme/0-h.png",
    )
    assert (await bench.jobs.get(job.id)).request == job.request
    others = await bench.jobs.add(job_request(output=output), 100, KeyRules())
    assert others.request.output == output


@pytest.mark.parametrize("prefix", ["../x", "a/../b", "/a", "a" * 129, ""])
def test_prefix_that_leads_elsewhere_is_no_rule(prefix):
    with pytest.raises(ValueError, match="storage_prefix"):
        KeyRules(storage_prefix=prefix)
