"""Which revision a job goes to, who may begin a canary and who may promote it."""

from pathlib import Path

import pytest

from serve_app import errors
from serve_app.models import AddOn, Catalogue, CatalogueView, ModelEntry
from serve_app.models.canaries import Canaries
from serve_app.models.canary import WEIGHTS, Canary, Score, Scores
from serve_app.models.registry import Registry
from serve_app.models.revision import asked_id, canary_id, is_canary
from serve_app.models.weights.files import Refused
from serve_app.testing.models import MemoryModelStore
from serve_app.types import Kind


def model(model_id="late", **changes):
    values = {"id": model_id, "source": "old", "kinds": (Kind.TEXT2IMG,), "placement": "pool"}
    return ModelEntry(**{**values, **changes})


def canary(share, **changes):
    return Canary(entry=model(**{"source": "new", **changes}), share=share, since=1.0)


def test_share_of_the_jobs_goes_to_the_canary():
    catalogue = Catalogue([model(), model("other")], canaries=[canary(12.5)])
    drawn = [catalogue.draw("late", number / 1000) for number in range(1000)]
    assert drawn.count(canary_id("late")) == 125
    assert drawn.count("late") == 875
    assert catalogue.draw("other", 0.0) == "other"


@pytest.mark.parametrize(("share", "goes"), [(0, "late"), (100, canary_id("late"))])
def test_none_and_all_may_go_there(share, goes):
    catalogue = Catalogue([model()], canaries=[canary(share)])
    assert {catalogue.draw("late", chance) for chance in (0.0, 0.5, 1 - 2**-53)} == {goes}


def test_canary_is_painted_from_its_own_weights_and_by_the_pool():
    catalogue = Catalogue(
        [model(placement="own")], canaries=[canary(10, placement="own"), canary(1, id="gone")]
    )
    entry = catalogue.revision(canary_id("late"), Kind.TEXT2IMG)
    assert (entry.id, str(entry.source), entry.placement) == ("late@canary", "new", "pool")
    assert [one.id for one in catalogue.revisions] == ["late", "late@canary"]
    assert canary_id("late") in catalogue
    assert canary_id("gone") not in catalogue


def test_no_client_sees_or_names_a_canary():
    catalogue = Catalogue([model()], canaries=[canary(10)])
    assert [entry.id for entry in catalogue] == ["late"]
    with pytest.raises(errors.ModelNotFound):
        catalogue.find(canary_id("late"), Kind.TEXT2IMG)


def test_without_its_canary_a_job_goes_to_the_model():
    assert str(Catalogue([model()]).revision(canary_id("late")).source) == "old"
    with pytest.raises(errors.ModelNotFound):
        Catalogue([model()]).revision(canary_id("gone"))
    with pytest.raises(errors.NotServed):
        Catalogue([model()]).revision(canary_id("late"), Kind.INPAINT)


@pytest.mark.parametrize(
    ("counts", "rate"),
    [((0, 0, 3), None), ((3, 1, 9), 0.25), ((0, 2, 0), 1.0), ((4, 0, 0), 0.0)],
)
def test_error_rate_is_of_the_jobs_that_succeeded_or_failed(counts, rate):
    succeeded, failed, cancelled = counts
    assert Score(succeeded=succeeded, failed=failed, cancelled=cancelled).error_rate == rate


def test_revision_without_a_job_has_a_score_of_nothing():
    nothing = {"succeeded": 0, "failed": 0, "cancelled": 0, "run_s": None}
    assert Scores().model_dump() == {"model": nothing, "canary": nothing}


def test_share_is_of_a_hundred():
    for share in (0, 100):
        assert canary(share).share == share
    for share in (-0.1, 100.1):
        with pytest.raises(ValueError, match="share"):
            canary(share)


def test_add_ons_of_a_model_fit_its_canary():
    ink = AddOn(id="ink", type="lora", source="ink.safetensors", models=("late",))
    assert ink.fits(canary_id("late"))
    assert not ink.fits(canary_id("other"))


def test_ids_of_canaries_are_no_ids_of_entries():
    assert asked_id(canary_id("late")) == asked_id("late") == "late"
    assert (is_canary(canary_id("late")), is_canary("late")) == (True, False)
    with pytest.raises(ValueError, match="id"):
        model(canary_id("late"))


def test_client_does_not_hear_of_a_canary_whose_weights_are_bad():
    refused = errors.WeightsRefused(canary_id("late"), "a path")
    assert refused.public_message == "Failed: the weights of late could not be loaded."
    assert "late@canary" in str(refused)  # for the log


def bench(*, has_pool=True, judge=None, fixed=()):
    store = MemoryModelStore()
    registry = Registry(Catalogue(fixed), store, has_pool=has_pool, judge=judge)
    return store, Canaries(registry)


async def test_views_of_all_processes_learn_of_it(tmp_path):
    store, canaries = bench()
    await store.put(model())
    view = CatalogueView(Catalogue([]), store, tmp_path)
    await canaries.begin(model(source="new"), 100)
    known = await view.knowing(canary_id("late"))
    assert known.revision(canary_id("late")).source == tmp_path / "new"
    await canaries.roll_back("late")
    await view.refresh()
    assert view.now.draw("late", 0.0) == "late"


async def test_canary_is_shown_shared_promoted_and_rolled_back():
    store, canaries = bench()
    await store.put(model())
    await canaries.begin(model(source="new"), 5)
    await canaries.share("late", 50)
    found, scores = await canaries.find("late")
    assert (found.share, scores.canary.error_rate) == (50, None)
    await canaries.promote("late")
    assert [entry.source for entry in await store.entries()] == [Path("new")]
    for refused in (canaries.find, canaries.promote, canaries.roll_back):
        with pytest.raises(errors.InvalidRequest, match="has no canary"):
            await refused("late")
    with pytest.raises(errors.InvalidRequest, match="has no canary"):
        await canaries.share("late", 5)


async def test_canary_is_found_among_those_of_other_models():
    store, canaries = bench()
    for name in ("early", "late"):
        await store.put(model(name))
        await canaries.begin(model(name, source="new"), 5)
    for name in ("late", "early"):
        assert (await canaries.find(name))[0].entry.id == name
    with pytest.raises(errors.InvalidRequest) as caught:
        await canaries.find("never")
    assert caught.value.field == "id"
    assert "The model never has no canary" in caught.value.public_message


def test_canary_may_differ_in_what_it_weighs_and_how_it_is_loaded_only():
    """What requests are made complete by, and what they may ask for, stays."""
    assert set(ModelEntry.model_fields) - WEIGHTS == {
        "id", "kinds", "category", "defaults", "enhancement", "instance_prompt", "upscaler",
        "native_size_px", "size_multiple_px", "warm_sizes_px", "max_guidance", "max_steps",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (model(source="new", kinds=(Kind.IMG2IMG,)), "in kinds"),
        (model(source="new", native_size_px=768, max_steps=8), "in max_steps, native_size_px"),
        (AddOn(id="late", type="lora", source="x.safetensors"), "not an add-on"),
    ],
    ids=["kinds", "sizes", "add-on"],
)
async def test_canary_differs_in_weights_only(entry, message):
    """Requests are made complete by the entry of the model, before it is known who paints them."""
    store, canaries = bench()
    await store.put(model())
    with pytest.raises(errors.InvalidRequest, match=message):
        await canaries.begin(entry, 5)
    assert await store.canaries() == []


async def test_canary_needs_a_model_a_pool_and_files_that_fit():
    def judge(entry, _models):
        raise Refused("is something else")

    with pytest.raises(errors.ModelNotFound):
        await bench()[1].begin(model(), 5)
    with pytest.raises(errors.InvalidRequest, match="painted by the Pool"):
        await bench(has_pool=False, fixed=[model()])[1].begin(model(source="new"), 5)
    with pytest.raises(errors.InvalidRequest, match="late: is something else"):
        await bench(judge=judge, fixed=[model()])[1].begin(model(source="new"), 5)


@pytest.mark.parametrize("placement", ["own", "file"])
async def test_what_cannot_be_exchanged_at_run_time_is_not_promoted(placement):
    own = model(placement="own")
    store, canaries = bench(fixed=[own] if placement == "file" else [])
    if placement == "own":
        await store.put(own)
    await canaries.begin(model(source="new"), 5)
    with pytest.raises(errors.InvalidRequest, match="roll the canary back"):
        await canaries.promote("late")
    assert len(await store.canaries()) == 1
