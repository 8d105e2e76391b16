"""Models of a Pool replica: loaded by the catalogue of now, following reloads while held."""

import asyncio
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from serve_app import errors
from serve_app.config import AppConfig
from serve_app.models import Catalogue, ModelEntry
from serve_app.models.canary import Canary
from serve_app.models.revision import canary_id
from serve_app.pipelines.host import HostSnapshot
from serve_app.replica.cache import ModelCache
from serve_app.replica.pool_loader import PoolLoader
from serve_app.testing.models import MemoryModelStore
from serve_app.types import Kind
from tests.builders import spec


def entry(model_id="m", **changes):
    facts = {"source": Path(model_id), "kinds": tuple(Kind), "placement": "pool"} | changes
    return ModelEntry(id=model_id, **facts)


class Replica:
    """A cache over a loader with fake painters, whose catalogue and store tests change."""

    def __init__(self, *entries, poll_s=60, **pool):
        self.catalogue = Catalogue(entries)
        self.store = MemoryModelStore()
        sections = {"engine": {"painter": "fake"}, "reload": {"poll_s": poll_s, "report_s": 60}}
        config = AppConfig.model_validate(
            sections | {"pool": {"retry_load_s": 0, "assumed_bytes": 1} | pool}
        )
        self.loader = PoolLoader(lambda: self.catalogue, self.store, "replica", config)
        self.cache = ModelCache(self.loader, config.pool)

    async def paint(self, model_id="m"):
        async with self.cache.use(model_id) as resident:
            return await resident.paint(1, spec(model_id=model_id, steps=1), None)


async def test_model_follows_a_reload_while_it_is_held():
    replica = Replica(entry())
    assert (await replica.paint()).ran == {}
    await replica.store.advance("m")
    async with replica.cache.use("m") as resident:
        await resident.reconcile()
    assert (await replica.paint()).ran == {"generation": 1}
    assert replica.cache.snapshot().loads == 1
    await replica.cache.close()


async def test_model_that_comes_back_takes_up_what_is_wanted():
    replica = Replica(entry(), idle_s=0)
    await replica.paint()
    await replica.store.advance("m")
    await replica.cache.close()
    replica.cache = ModelCache(replica.loader, AppConfig().pool)
    assert (await replica.paint()).ran == {"generation": 1}
    await replica.cache.close()


async def test_model_whose_entry_changed_or_went_is_outdated():
    replica = Replica(entry("m"), entry("n"), entry("same"))
    for model_id in ("m", "n", "same"):
        await replica.paint(model_id)
    assert replica.loader.outdated() == []
    replica.catalogue = Catalogue([entry("m", native_size_px=64), entry("same")])
    assert replica.loader.outdated() == ["m", "n"]
    replica.cache.retire("n")
    with pytest.raises(errors.ModelLoadFailed):
        await replica.paint("n")
    await replica.cache.close()


async def test_evicted_model_is_freed():
    replica = Replica(entry(), idle_s=0)
    async with replica.cache.use("m") as resident:
        gone = weakref.ref(resident)
    del resident
    await replica.cache.close()
    assert gone() is None


async def test_size_of_absent_files_is_assumed():
    replica = Replica(entry(), assumed_bytes=7)
    assert await replica.loader.estimate_bytes("m") == 7


async def test_canary_is_loaded_beside_its_model_and_outdated_when_it_ends_or_changes():
    new = Canary(entry=entry(source=Path("new")), share=5, since=1.0)
    replica = Replica(entry(), memory_bytes=2)
    replica.catalogue = Catalogue([entry()], canaries=[new])
    for model_id in ("m", canary_id("m")):
        assert len((await replica.paint(model_id)).pictures) == 1
    assert replica.loader.outdated() == []
    newer = new.model_copy(update={"entry": entry(source=Path("newer"))})
    for catalogue in (Catalogue([entry()], canaries=[newer]), Catalogue([entry()])):
        replica.catalogue = catalogue
        assert replica.loader.outdated() == [canary_id("m")]
    await replica.cache.close()


async def test_other_share_leaves_the_weights_where_they_are():
    replica = Replica(entry())
    for share in (5, 50):
        canary = Canary(entry=entry(source=Path("new")), share=share, since=1.0)
        replica.catalogue = Catalogue([entry()], canaries=[canary])
        await replica.paint(canary_id("m"))
    assert replica.loader.outdated() == []
    assert replica.cache.snapshot().loads == 1
    await replica.cache.close()


async def test_held_model_follows_the_store_by_itself_and_an_evicted_one_no_more():
    replica = Replica(entry(), poll_s=0.05)
    before = asyncio.all_tasks()
    await replica.paint()
    await replica.store.advance("m")
    async with asyncio.timeout(10):
        while (await replica.paint()).ran != {"generation": 1}:
            await asyncio.sleep(0.01)
    await replica.cache.close()
    rounds = asyncio.all_tasks() - before
    if rounds:
        await asyncio.wait(rounds, timeout=5)
    assert all(task.done() for task in rounds)


async def test_size_of_files_is_that_of_their_tensors_in_the_dtype_of_the_entry(tmp_path):
    file = tmp_path / "m.safetensors"
    save_file({"a": torch.zeros(10, dtype=torch.float32)}, file)
    for dtype, num_bytes in (("float32", 40), ("float16", 20)):
        replica = Replica(entry(source=file, dtype=dtype), assumed_bytes=7)
        assert await replica.loader.estimate_bytes("m") == num_bytes


async def test_size_of_a_painter_is_what_it_says_and_as_estimated_where_it_says_nothing():
    loader = Replica(entry()).loader
    for said, measured in ((0, None), (5, 5)):
        assert (
            loader.measure_bytes(SimpleNamespace(weight_bytes=lambda said=said: said)) == measured
        )


async def test_replica_reports_the_models_that_it_holds_and_copies_nothing_by_itself():
    replica = Replica(entry())
    await replica.paint()
    (report,) = await replica.store.reports("m", 100)
    assert (report.model_id, report.replica_id, report.serving) == ("m", "replica", 0)
    assert replica.loader.host_snapshot() == HostSnapshot(0, 0, 0)
    await replica.cache.close()
