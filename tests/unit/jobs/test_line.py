"""Jobs that join a line: they come where the store would put them."""

import random

import pytest

from serve_app.jobs.line import Line
from serve_app.jobs.rules import KeyRules
from serve_app.types import JobState
from tests.builders import job_request


async def test_line_that_is_not_there_has_nobody():
    line = Line()
    assert (line.num_begun, line.job_ids, line.ahead_of(7)) == (0, [], None)


async def test_who_is_ahead_are_those_that_are_due_before(bench):
    heavy = [await bench.job(key_id="heavy") for _ in range(3)]
    light = await bench.job(key_id="light")
    line = await bench.jobs.turns()
    assert line.ahead_of(heavy[0].id) == []
    assert line.ahead_of(light.id) == [heavy[0].id]
    assert line.ahead_of(heavy[2].id) == [heavy[0].id, light.id, heavy[1].id]


@pytest.mark.parametrize("seed", range(5))
async def test_job_that_joins_has_the_place_that_the_store_gives_it(bench, seed):
    draw = random.Random(seed)
    strong, _ = await bench.keys.create("strong", KeyRules(weight=3.0, max_priority=2))
    keys = ["light", "heavy", "heavy", strong.id]

    async def accepted():
        priority = draw.choice([0, 0, 0, -2, 2])
        rules = KeyRules(max_priority=2)
        return await bench.jobs.add(
            job_request(key_id=draw.choice(keys), priority=priority), 999, rules
        )

    for _ in range(12):
        await accepted()
    for job in await bench.jobs.claim("a", 60, 4):
        await bench.jobs.renew("a", 60, {job.id: 0.5})
    for turns in (bench.jobs.turns, lambda: bench.jobs.waiting("tiny")):
        line, job = await turns(), await accepted()
        line.join(job)
        assert line.ahead_of(job.id) == (await turns()).ahead_of(job.id)


async def test_job_that_begins_at_once_goes_before_the_others_of_its_owner_to_come(bench):
    line = await bench.jobs.turns()
    begun = await bench.claimed("a", key_id="heavy")
    line.begin(begun)
    for key_id in ("heavy", "light"):
        line.join(await bench.job(key_id=key_id))
    store = await bench.jobs.turns()
    assert begun.state is JobState.PROCESSING
    assert (line.num_begun, line.job_ids) == (store.num_begun, store.job_ids)


async def test_job_that_a_look_has_seen_already_joins_no_second_time(bench):
    first, second = [await bench.job() for _ in range(2)]
    line = await bench.jobs.turns()
    before = line.job_ids
    line.join(first)
    assert line.job_ids == before
    assert line.ahead_of(second.id) == [first.id]
