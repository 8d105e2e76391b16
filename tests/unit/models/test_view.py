"""The catalogue grows and shrinks while the service runs; what does not fit is left out."""

import asyncio
from pathlib import Path

import pytest

from serve_app import errors
from serve_app.models import AddOn, Catalogue, CatalogueView, ModelEntry
from serve_app.models.registry import Registry
from serve_app.testing.models import MemoryModelStore
from serve_app.types import Kind

BAD_IDS = ["", "../../etc/passwd", "a/b", ".hidden", "a b", "a\0", "a\n", "ä", "x" * 10_000]


def model(model_id="tail", **changes):
    values = {"id": model_id, "source": "weights", "kinds": (Kind.TEXT2IMG,), "placement": "pool"}
    return ModelEntry(**{**values, **changes})


def lora(add_on_id="ink", **changes):
    return AddOn(**{"id": add_on_id, "type": "lora", "source": "ink.safetensors", **changes})


class Store(MemoryModelStore):
    """Counts how often entries are read, and is down when told so."""

    is_down = False
    num_reads = 0

    async def version(self):
        if self.is_down:
            raise errors.JobStoreUnavailable("down")
        return await super().version()

    async def entries(self):
        self.num_reads += 1
        return await super().entries()


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def fixed():
    return Catalogue([model("hot", placement="own")], [lora("fixed-lora")])


@pytest.fixture
def view(fixed, store):
    return CatalogueView(fixed, store, Path("/root-dir"))


@pytest.fixture
def registry(fixed, store):
    return Registry(fixed, store, has_pool=True)


async def test_view_takes_up_what_was_added_and_lets_go_of_it(view, registry):
    await registry.add(model())
    await registry.add(lora(models=("tail", "hot")))
    await view.refresh()
    assert [entry.id for entry in view.now] == ["hot", "tail"]
    assert view.find_add_on("ink", "lora").source == Path("/root-dir/ink.safetensors")
    await registry.remove("ink")
    await view.refresh()
    assert view.find_add_on("ink", "lora") is None
    assert view.find_add_on("fixed-lora", "lora") is not None


async def test_view_that_is_asked_for_an_unknown_id_looks_at_once(view, registry):
    await registry.add(lora())
    assert "ink" in await view.knowing("hot", "ink")


async def test_view_that_knows_all_ids_does_not_ask_the_store(view, store):
    store.is_down = True
    assert "hot" in await view.knowing("hot", "fixed-lora")


async def test_view_reads_entries_only_when_they_changed(view, store, registry):
    await registry.add(lora())
    for _ in range(3):
        await view.refresh()
        await view.knowing("nope")
    assert store.num_reads == 2  # the registry's own, and one


async def test_view_keeps_the_last_catalogue_while_the_store_is_down(view, store, registry):
    await registry.add(lora())
    await view.refresh()
    store.is_down = True
    assert "ink" in await view.knowing("nope")


async def test_view_refreshes_in_rounds_also_after_an_outage(view, store, registry):
    await registry.add(lora())
    store.is_down = True
    rounds = asyncio.create_task(view.run(0.001))
    await asyncio.sleep(0.01)
    assert "ink" not in view.now
    store.is_down = False
    while "ink" not in view.now:
        await asyncio.sleep(0.001)
    rounds.cancel()


async def test_view_leaves_out_what_does_not_fit(view, store):
    for entry in (lora("hot"), lora(models=("gone",)), lora("half", models=("gone", "hot"))):
        await store.put(entry)
    await view.refresh()
    assert [(item.id, item.models) for item in view.now.add_ons] == [
        ("fixed-lora", ()),
        ("half", ("hot",)),
    ]
    assert [entry.id for entry in view.now] == ["hot"]


async def test_registry_lists_all_entries_in_order(registry):
    await registry.add(model())
    await registry.add(lora())
    listed = [(entry.id, is_added) for entry, is_added in await registry.entries()]
    assert listed == [("fixed-lora", False), ("hot", False), ("ink", True), ("tail", True)]


async def test_registry_replaces_its_own_entries(registry):
    await registry.add(model())
    await registry.add(model(name="again"))
    assert [entry.name for entry, is_added in await registry.entries() if is_added] == ["again"]


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        (model("hot"), "id"),
        (lora("hot"), "id"),
        (lora("fixed-lora"), "id"),
        (lora(models=("nope",)), "models"),
        (lora(models=("fixed-lora",)), "models"),
        (lora("ink", models=("ink",)), "models"),
    ],
    ids=["model", "add-on", "other", "unknown", "not-a-model", "itself"],
)
async def test_registry_refuses(registry, store, entry, field):
    with pytest.raises(errors.InvalidRequest) as refusal:
        await registry.add(entry)
    assert refusal.value.field == field
    assert await store.version() == 0


async def test_registry_without_a_pool_takes_no_model_for_it(fixed, store):
    registry = Registry(fixed, store, has_pool=False)
    await registry.add(lora())
    await registry.add(model("own", placement="own"))
    with pytest.raises(errors.InvalidRequest, match="no Pool") as refusal:
        await registry.add(model())
    assert refusal.value.field == "placement"


@pytest.mark.parametrize("entry_id", ["nope", "hot", *BAD_IDS], ids=lambda text: ascii(text)[:20])
async def test_remove_of_what_was_not_added_is_not_found(registry, entry_id):
    with pytest.raises((errors.ModelNotFound, errors.InvalidRequest)):
        await registry.remove(entry_id)


@pytest.mark.parametrize("entry_id", BAD_IDS, ids=lambda text: ascii(text)[:20])
def test_ids_that_are_none_make_no_entry(entry_id):
    for make in (model, lora):
        with pytest.raises(ValueError):
            make(entry_id)
    with pytest.raises(ValueError):
        lora(models=(entry_id,))
