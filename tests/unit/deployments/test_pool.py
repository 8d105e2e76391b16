"""The Pool's class by itself: no cluster, fake painters, a database of its own."""

import asyncio
from types import SimpleNamespace

import pytest
from ray import serve

from deployments.pool import Pool
from deployments.stage import StageFailure
from serve_app import errors
from serve_app.config import AppConfig
from serve_app.database import open_job_store
from serve_app.database.models import SqlModelStore
from serve_app.models import Catalogue, ModelEntry
from serve_app.models.revision import canary_id
from serve_app.types import Kind
from tests.builders import spec


def entry(model_id):
    return ModelEntry(id=model_id, source="no", kinds=(Kind.TEXT2IMG,), placement="pool")


class Quiet(Pool):
    """Closed by the fixture; Python would not await the destructor."""

    def __del__(self):
        pass


@pytest.fixture
async def pool(request, tmp_path, monkeypatch):
    replica = SimpleNamespace(replica_id=SimpleNamespace(unique_id="replica"))
    monkeypatch.setattr(serve, "get_replica_context", lambda: replica)
    room = {"assumed_bytes": 1, "memory_bytes": 1} | getattr(request, "param", {})
    sections = {"engine": {"painter": "fake"}, "pool": room}
    config = AppConfig.model_validate({"root_dir": tmp_path, **sections})
    (tmp_path / "var").mkdir()
    pool = Quiet.__new__(Quiet)  # Serve awaits the constructor too
    await pool.__init__(config, Catalogue(map(entry, "abcdef")))
    yield pool
    await Pool.__del__(pool)


@pytest.fixture
async def store(pool, tmp_path):
    jobs = await open_job_store(AppConfig.model_validate({"root_dir": tmp_path}).database)
    yield SqlModelStore(jobs.database)
    await jobs.close()


async def test_models_take_turns_and_tell_where_they_are(pool):
    for model_id in "aba":
        pictures = await pool.paint(1, spec(model_id=model_id), None)
        assert len(pictures.pictures) == 1
    assert await pool.record_routing_stats() == {
        "held": ["a"],
        "loading": [],
        "calls": {},
        "used": 1.0,
    }
    assert await pool.load_s("a") == 0
    assert await pool.load_s("b") > 0
    await pool.check_health()


@pytest.mark.slow
@pytest.mark.parametrize("pool", [{"memory_bytes": 2, "turn_s": 0}], indirect=True)
async def test_twelve_calls_for_six_models_with_room_for_two(pool):
    """A fake painter that is closed in use fails its job, so pictures say that none was."""
    asked = [spec(model_id=model_id, seed=seed) for seed in (1, 2) for model_id in "abcdef"]
    made = await asyncio.gather(*(pool.paint(n, one, None) for n, one in enumerate(asked)))
    assert len({pictures.pictures[0].data for pictures in made}) == 12
    counted = pool._cache.snapshot()
    assert (counted.loads, counted.evictions, counted.held) == (6, 4, 2)


async def test_model_added_at_run_time_is_served(pool, store):
    await store.put(entry("new"))
    assert (await pool.paint(1, spec(model_id="new"), None)).load_s > 0


async def test_unknown_model_and_other_kinds_are_told(pool):
    unknown = await pool.paint(1, spec(model_id="nobody"), None)
    other = await pool.paint(1, spec(model_id="a", kind=Kind.INPAINT), None)
    assert [type(failure) for failure in (unknown, other)] == [StageFailure] * 2
    assert isinstance(unknown.error, errors.ModelNotFound)
    assert isinstance(other.error, errors.NotServed)


async def test_canary_is_painted_beside_its_model_until_it_ends(pool, store):
    to_canary, to_model = spec(model_id=canary_id("a")), spec(model_id="a")
    assert await pool.paint(1, to_canary, None)
    assert held(pool) == {"a"}  # there is no canary yet
    await store.begin_canary(entry("a").model_copy(update={"name": "new"}), 50)
    assert await pool.load_s(canary_id("a")) > 0
    await pool.preload(canary_id("a"))
    assert held(pool) == {canary_id("a")}
    assert len((await pool.paint(1, to_canary, None)).pictures) == 1
    assert len((await pool.paint(2, to_model, None)).pictures) == 1
    await store.end_canary("a")
    await pool._view.refresh()  # as it does every few seconds
    assert (await pool.paint(3, to_canary, None)).load_s > 0
    assert held(pool) == {"a"}


def held(pool):
    return set(pool._cache.items())
