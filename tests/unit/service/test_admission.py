"""Repeats, limits per key and outages, as the service words them."""

import asyncio
from pathlib import Path

import pytest

from serve_app import errors
from serve_app.config import AppConfig
from serve_app.jobs.driver import Driver
from serve_app.jobs.protocol import Idempotency
from serve_app.jobs.rules import KeyRules
from serve_app.models import Catalogue, CatalogueView
from serve_app.models.reload import Reloads
from serve_app.service.generation import GenerationService, Stores
from serve_app.testing.graph import FakeGraph
from serve_app.testing.jobs import MemoryJobStore, MemoryKeyStore
from serve_app.testing.models import MemoryModelStore
from serve_app.testing.storage import MemoryStore
from serve_app.types import JobState
from tests.builders import job_request, webhook_body

REPEAT = Idempotency("order-7", "digest")


class FlakyStore(MemoryJobStore):
    """Down while `is_down`, for reads and claims."""

    is_down = False

    async def get(self, job_id):
        self._check()
        return await super().get(job_id)

    async def claim(self, *args, **kwargs):
        self._check()
        return await super().claim(*args, **kwargs)

    def _check(self):
        if self.is_down:
            raise errors.JobStoreUnavailable("down")


class Bench:
    def __init__(self, mode, **sections):
        config = AppConfig.model_validate(
            {"auth": {"mode": mode}, "jobs": {"poll_s": 0.05}, **sections}
        )
        self.keys = MemoryKeyStore()
        self.graph, self.jobs = FakeGraph(), FlakyStore(keys=self.keys)
        self.driver = Driver(self.jobs, self.graph, config.jobs, webhook_body)
        self.service = GenerationService(
            Stores(self.jobs, MemoryStore(), self.keys, self.jobs.outbox),
            CatalogueView(Catalogue([]), MemoryModelStore(), Path()),
            self.driver,
            self.graph,
            Reloads(MemoryModelStore(), self.graph.notify_replicas, config.reload),
            config,
        )


@pytest.fixture
async def make():
    made = []

    def make(mode="keys", **sections):
        made.append(Bench(mode, **sections))
        made[-1].driver.start()
        return made[-1]

    yield make
    for bench in made:
        await bench.driver.close()


async def test_repeated_submit_returns_the_job_and_runs_it_once(make):
    bench = make()
    first = await bench.service.accept(job_request(), REPEAT)
    done = await bench.service.wait(first.id, 5, cancel_if_left=False)
    again = await bench.service.accept(job_request(), REPEAT)
    assert again == done
    assert await bench.service.admit("open", REPEAT) == done
    assert bench.graph.runs[first.id] == 1


async def test_idempotency_ends_after_the_configured_time(make):
    bench = make(jobs={"idempotency_ttl_s": 0})
    first = await bench.service.accept(job_request(), REPEAT)
    assert (await bench.service.accept(job_request(), REPEAT)).id != first.id


async def test_admit_counts_jobs_per_minute_and_key(make):
    bench = make(limits={"requests_per_minute": 2})
    for key_id in ("key_a", "key_a", "key_b"):
        await bench.service.admit(key_id)
        await bench.service.accept(job_request(key_id=key_id))
    await bench.service.admit("key_b")
    with pytest.raises(errors.RateLimited) as caught:
        await bench.service.admit("key_a")
    assert 50 < caught.value.retry_after_s <= 60


async def test_rate_of_a_key_is_its_own_also_above_that_of_the_settings(make):
    bench = make(limits={"requests_per_minute": 1})
    key, _ = await bench.keys.create("shop", KeyRules(requests_per_minute=3))
    for _ in range(3):
        await bench.service.admit(key.id)
        await bench.service.accept(job_request(key_id=key.id))
    with pytest.raises(errors.RateLimited):
        await bench.service.admit(key.id)


async def test_repeat_does_not_count_against_the_rate(make):
    bench = make(limits={"requests_per_minute": 2})
    await bench.service.accept(job_request(key_id="key_a"), REPEAT)
    for _ in range(5):
        assert await bench.service.admit("key_a", REPEAT)
    await bench.service.admit("key_a")


async def test_key_has_its_own_places(make):
    bench = make(limits={"max_open_per_key": 1})
    bench.graph.duration_s = 30
    await bench.service.accept(job_request(key_id="key_a"))
    with pytest.raises(errors.TooManyOpen):
        await bench.service.accept(job_request(key_id="key_a"))
    with pytest.raises(errors.TooManyOpen):
        await bench.service.admit("key_a")
    await bench.service.accept(job_request(key_id="key_b"))


@pytest.mark.parametrize("repeat", [None, REPEAT], ids=["plain", "idempotent"])
async def test_key_without_places_is_told_when_one_is_likely_to_be_free(make, repeat):
    bench = make(limits={"max_open_per_key": 2}, jobs={"max_driven": 4, "poll_s": 0.05})
    bench.graph.duration_s = 30
    bench.driver.eta.observe(job_request().spec, 6.0)
    for key_id in ("key_a", "key_a", "key_b"):
        await bench.service.accept(job_request(key_id=key_id))
    for refused in (bench.service.admit("key_a", repeat), _submit(bench, repeat)):
        with pytest.raises(errors.TooManyOpen) as caught:
            await refused
        assert caught.value.retry_after_s == pytest.approx(3.0)  # of two runs of 6 s, the next end
        assert caught.value.public_message.endswith("Maximum 2 queued requests allowed.")


def _submit(bench, repeat):
    return bench.service.accept(job_request(key_id="key_a"), repeat)


async def test_open_mode_has_no_limits_per_key(make):
    bench = make("open", limits={"max_open_per_key": 1, "requests_per_minute": 1})
    bench.graph.duration_s = 30
    for _ in range(3):
        assert await bench.service.admit("open") is None
        await bench.service.accept(job_request())


async def test_admit_beyond_max_open_is_refused_before_any_work(make):
    bench = make(jobs={"max_open": 1})
    bench.graph.duration_s = 30
    await bench.service.accept(job_request())
    with pytest.raises(errors.Overloaded):
        await bench.service.admit("open")


async def test_job_accepted_before_an_outage_is_acknowledged_and_run_after_it(make):
    bench = make(jobs={"poll_s": 0.05})
    bench.jobs.is_down = True
    job = await bench.service.accept(job_request())
    waiting = asyncio.create_task(bench.service.wait(job.id, 10, cancel_if_left=True))
    await asyncio.sleep(0.1)
    bench.jobs.is_down = False
    assert (await waiting).state is JobState.SUCCESS


async def test_wait_over_an_outage_that_outlasts_the_hold_says_so(make):
    bench = make()
    job = await bench.service.accept(job_request())
    bench.jobs.is_down = True
    with pytest.raises(errors.JobStoreUnavailable):
        await bench.service.wait(job.id, 0.3, cancel_if_left=True)


async def test_light_key_comes_in_while_a_heavy_one_holds_all_places(make):
    bench = make(jobs={"max_open": 3, "max_open_guests": 1, "hold_s": 0})
    bench.graph.duration_s = 30
    heavy, light = [(await bench.keys.create(name))[0].id for name in ("heavy", "light")]
    for _ in range(3):
        await bench.service.accept(job_request(key_id=heavy))
    await bench.service.check_room()  # of nobody in particular
    for _ in range(2):
        with pytest.raises(errors.Overloaded):
            await bench.service.admit(heavy)
    assert await bench.service.admit(light) is None
    await bench.service.accept(job_request(key_id=light))
    with pytest.raises(errors.Overloaded):
        await bench.service.check_room()


async def test_without_keys_there_are_no_guests(make):
    bench = make("open", jobs={"max_open": 1, "hold_s": 0})
    bench.graph.duration_s = 30
    await bench.service.accept(job_request())
    with pytest.raises(errors.Overloaded):
        await bench.service.check_room()
