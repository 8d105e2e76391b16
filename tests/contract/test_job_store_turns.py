"""In which order every `JobStore` hands out the jobs that wait: keys in turn, by weight."""

import pytest

from serve_app import errors
from serve_app.jobs.rules import KeyRules
from tests.builders import job_request


async def add(bench, key_id, count=1, rules=None, **changes):
    """Accept jobs of a key; their ids."""
    request = job_request(key_id=key_id, **changes)
    return [(await bench.jobs.add(request, 10_000, rules)).id for _ in range(count)]


async def turns(bench):
    line = await bench.jobs.turns()
    return line.num_begun, line.job_ids


async def claimed(bench, limit):
    return [job.id for job in await bench.jobs.claim("a", 10, limit)]


async def test_key_with_many_jobs_does_not_make_others_wait_for_all_of_them(bench):
    heavy = await add(bench, "heavy", 20)
    (light,) = await add(bench, "light")
    assert await claimed(bench, 2) == [heavy[0], light]
    assert await claimed(bench, 2) == heavy[1:3]


async def test_key_with_jobs_at_work_comes_after_one_without(bench):
    heavy = await add(bench, "heavy", 8)
    assert await claimed(bench, 4) == heavy[:4]
    light = await add(bench, "light", 4)
    assert await claimed(bench, 4) == light
    assert await claimed(bench, 2) == heavy[4:6]


async def test_jobs_at_work_no_longer_count_when_they_end(bench):
    heavy = await add(bench, "heavy", 4)
    light = await add(bench, "light", 2)
    assert await claimed(bench, 2) == [heavy[0], light[0]]
    await bench.jobs.cancel(heavy[0])
    assert await claimed(bench, 1) == [heavy[1]]


async def test_job_whose_lease_ran_out_takes_its_turn_again(bench):
    heavy = await add(bench, "heavy", 6)
    assert await claimed(bench, 4) == heavy[:4]
    await bench.advance(20)
    (light,) = await add(bench, "light")
    assert await claimed(bench, 2) == [heavy[0], light]


async def test_keys_get_turns_by_weight(bench):
    strong, _ = await bench.keys.create("strong", KeyRules(weight=3.0))
    weak, _ = await bench.keys.create("weak", KeyRules())
    theirs = {key.id: await add(bench, key.id, 12, KeyRules()) for key in (weak, strong)}
    first = set(await claimed(bench, 8))
    assert len(first & set(theirs[strong.id])) == 6
    job = await bench.jobs.get(theirs[strong.id][0])
    assert job.weight == job.stake.pull == 3.0
    assert job.stake.owner == strong.id
    assert (await bench.jobs.get(theirs[weak.id][0])).weight == 1.0


async def test_weight_is_that_of_the_time_of_the_call(bench):
    key, _ = await bench.keys.create("one", KeyRules(weight=3.0))
    (before,) = await add(bench, key.id, rules=KeyRules())
    await bench.keys.change(key.id, KeyRules(weight=0.5))
    (after,) = await add(bench, key.id, rules=KeyRules())
    assert [(await bench.jobs.get(one)).weight for one in (before, after)] == [3.0, 0.5]


async def test_priority_orders_the_jobs_of_a_key_and_stays_with_them(bench):
    plain = await add(bench, "one", 3)
    (patient,) = await add(bench, "one", priority=-2)
    (urgent,) = await add(bench, "one", priority=2)
    assert (await bench.jobs.waiting("tiny")).job_ids == [urgent, *plain, patient]
    assert [(await bench.jobs.get(one)).request.priority for one in (urgent, patient)] == [2, -2]
    job, *_ = await bench.jobs.claim("a", 10, 1)
    assert (job.id, job.request.priority, job.stake.priority) == (urgent, 2, 2)


async def test_job_returned_by_add_is_the_stored_one(bench):
    key, _ = await bench.keys.create("one", KeyRules(weight=3.0, max_priority=1))
    request = job_request(key_id=key.id, priority=1)
    job = await bench.jobs.add(request, 10, KeyRules())
    assert job == await bench.jobs.get(job.id)


@pytest.mark.parametrize(("highest", "allowed"), [(None, 0), (0, 0), (2, 2)])
async def test_priority_beyond_what_the_key_may_ask_for_is_refused(bench, highest, allowed):
    key, _ = await bench.keys.create("one", KeyRules(max_priority=highest))
    assert await add(bench, key.id, rules=KeyRules(), priority=allowed)
    assert await add(bench, key.id, rules=KeyRules(), priority=-4)
    with pytest.raises(errors.NotAllowed, match=f"priority above {allowed}"):
        await add(bench, key.id, rules=KeyRules(), priority=allowed + 1)


async def test_places_in_the_queue_are_those_of_the_turns(bench):
    heavy = await add(bench, "heavy", 4)
    light = await add(bench, "light", 2)
    assert (await bench.jobs.waiting("tiny")).job_ids == [
        heavy[0], light[0], heavy[1], light[1], heavy[2], heavy[3],
    ]  # fmt: skip


async def test_turns_tell_in_which_order_jobs_will_be_claimed(bench):
    """So that an estimate for a light key's job counts none that come after it."""
    strong, _ = await bench.keys.create("strong", KeyRules(weight=3.0))
    await add(bench, "heavy", 9)
    await claimed(bench, 3)
    await add(bench, "light")
    await add(bench, strong.id, 4, KeyRules())
    await add(bench, "heavy", priority=2)
    line = await bench.jobs.turns()
    order = line.job_ids
    assert (line.num_begun, len(order)) == (3, 12)
    assert [(await claimed(bench, 1))[0] for _ in order] == order
    assert await turns(bench) == (15, [])


async def test_turns_know_of_jobs_that_wait_for_their_next_attempt(bench):
    first, second = await add(bench, "a", 2)
    await claimed(bench, 1)
    await bench.jobs.release("a", [first], 60)
    assert await turns(bench) == (0, [first, second])


async def test_key_without_open_jobs_is_accepted_although_others_hold_all_places(bench):
    async def ask(key_id):
        request = job_request(key_id=key_id)
        await bench.jobs.admit(key_id, 3, KeyRules(), guests=2)
        return await bench.jobs.add(request, 3, KeyRules(), guests=2)

    for _ in range(3):
        await ask("heavy")
    with pytest.raises(errors.Overloaded):
        await ask("heavy")
    first = await ask("light")
    with pytest.raises(errors.Overloaded):
        await ask("light")  # it has one
    await ask("other")
    with pytest.raises(errors.Overloaded):
        await ask("third")  # so many and no more
    await bench.jobs.cancel(first.id)
    await ask("third")


async def test_without_guests_nobody_is_accepted_beyond_the_limit(bench):
    await bench.jobs.add(job_request(key_id="heavy"), 1)
    with pytest.raises(errors.Overloaded):
        await bench.jobs.add(job_request(key_id="light"), 1)
