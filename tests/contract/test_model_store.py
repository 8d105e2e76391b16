"""What holds for every `ModelStore`: in memory, on SQLite and on PostgreSQL."""

import asyncio

import pytest

from serve_app import errors
from serve_app.models import AddOn, ModelEntry
from serve_app.models.protocol import Desired, ReplicaPhase, ReplicaReport
from serve_app.types import Kind


def model(**changes):
    values = {"id": "sd", "source": "weights/sd", "kinds": (Kind.TEXT2IMG,), "placement": "pool"}
    return ModelEntry(**{**values, **changes})


def lora(**changes):
    return AddOn(**{"id": "ink", "type": "lora", "source": "ink.safetensors", **changes})


def report(**changes):
    values = {"model_id": "sd", "replica_id": "r1", "weights_version": 2, "serving": 1}
    return ReplicaReport(**{**values, "phase": ReplicaPhase.LOADING, **changes})


async def test_entries_are_what_was_put_in_order_of_id(bench):
    entries = [model(), lora(models=("sd",)), model(id="A", defaults={"steps": 3})]
    for entry in entries:
        await bench.models.put(entry)
    assert await bench.models.entries() == [entries[2], entries[1], entries[0]]
    await bench.reopen()
    assert len(await bench.models.entries()) == 3


async def test_put_of_a_known_id_replaces_the_entry(bench):
    await bench.models.put(model())
    await bench.models.put(lora(id="sd"))
    assert await bench.models.entries() == [lora(id="sd")]


async def test_version_grows_with_each_change_and_only_then(bench):
    assert await bench.models.version() == 0
    await bench.models.put(model())
    first = await bench.models.version()
    await bench.models.put(model())
    second = await bench.models.version()
    assert not await bench.models.remove("other")
    assert 0 < first < second == await bench.models.version()
    assert await bench.models.remove("sd")
    assert await bench.models.version() > second
    assert await bench.models.entries() == []


async def test_put_and_remove_of_one_entry_at_a_time_wait_for_each_other(bench):
    changes = [step for _ in range(10) for step in (bench.models.put(model()), remove(bench))]
    await asyncio.gather(*changes)  # raises when two of them locked each other out
    await bench.models.put(model())
    assert await bench.models.entries() == [model()]


async def remove(bench):
    await bench.models.remove("sd")


async def test_reload_with_a_mark_counts_once_however_many_say_it(bench):
    wanted = await asyncio.gather(*(bench.models.advance("sd", "v2", "deploy 1") for _ in range(4)))
    assert {one.weights_version for one in wanted} == {1}
    assert (await bench.models.advance("sd")).weights_version == 2  # by a client
    assert (await bench.models.advance("sd", "v2", "deploy 1")).weights_version == 2
    third = await bench.models.advance("sd", "v3", "deploy 2")
    assert third == Desired(model_id="sd", weights_version=3, revision="v3")
    assert (await bench.models.advance("sd", "v2", "deploy 1")).weights_version == 4  # rolled back


async def test_version_counts_changes_at_the_same_time(bench):
    await asyncio.gather(*(bench.models.put(lora(id=f"l{number}")) for number in range(8)))
    assert await bench.models.version() == 8
    assert len(await bench.models.entries()) == 8


@pytest.mark.parametrize("text", ["a\0b", "Größe", "\U0001f600"], ids=ascii)
async def test_put_keeps_odd_texts(bench, text):
    await bench.models.put(lora(description=text))
    assert [entry.description for entry in await bench.models.entries()] == [text]


async def test_desired_of_models_never_reloaded_is_generation_zero(bench):
    assert await bench.models.desired(["sd"]) == {"sd": Desired(model_id="sd")}
    assert await bench.models.desired([]) == {}


async def test_reload_counts_up_and_keeps_the_revision(bench):
    assert await bench.models.advance("sd") == Desired(model_id="sd", weights_version=1)
    assert (await bench.models.advance("sd", "v2")).revision == "v2"
    third = await bench.models.advance("sd")
    assert (third.weights_version, third.revision) == (3, "v2")
    assert await bench.models.desired(["other", "sd"]) == {
        "other": Desired(model_id="other"),
        "sd": third,
    }


async def test_reload_eight_times_at_once_gives_eight_generations(bench):
    wanted = await asyncio.gather(*(bench.models.advance("sd") for _ in range(8)))
    assert sorted(desired.weights_version for desired in wanted) == list(range(1, 9))


async def test_generations_survive_the_removal_of_their_entry(bench):
    await bench.models.put(model())
    await bench.models.advance("sd")
    await bench.models.remove("sd")
    assert (await bench.models.advance("sd")).weights_version == 2


async def test_reports_show_the_last_of_each_replica(bench):
    for said in (report(), report(replica_id="r0"), report(model_id="other")):
        await bench.models.report(said)
    await bench.models.report(report(phase=ReplicaPhase.FAILED, reason="NaN in \0 unet"))
    first, second = await bench.models.reports("sd", 60)
    assert (first.replica_id, first.phase) == ("r0", ReplicaPhase.LOADING)
    assert (second.replica_id, second.reason) == ("r1", "NaN in \0 unet")
    assert second.reported_at > 1_600_000_000


async def test_reports_older_than_asked_are_left_out(bench):
    await bench.models.report(report())
    await bench.advance(30)
    await bench.models.report(report(replica_id="r2"))
    assert [said.replica_id for said in await bench.models.reports("sd", 20)] == ["r2"]
    assert len(await bench.models.reports("sd", 60)) == 2


async def test_turn_belongs_to_one_owner_until_it_ends(bench):
    assert await bench.models.take_turn("sd", "r1", 10)
    assert not await bench.models.take_turn("sd", "r2", 10)
    assert await bench.models.take_turn("other", "r2", 10)
    await bench.models.end_turn("sd", "r2")
    assert not await bench.models.take_turn("sd", "r2", 10)
    await bench.models.end_turn("sd", "r1")
    assert await bench.models.take_turn("sd", "r2", 10)


async def test_turn_is_renewed_by_its_owner_and_runs_out(bench):
    assert await bench.models.take_turn("sd", "r1", 10)
    await bench.advance(8)
    assert await bench.models.take_turn("sd", "r1", 10)
    await bench.advance(8)
    assert not await bench.models.take_turn("sd", "r2", 10)
    await bench.advance(3)
    assert await bench.models.take_turn("sd", "r2", 10)


async def test_turn_asked_for_by_eight_at_once_goes_to_one(bench):
    asked = [bench.models.take_turn("sd", f"r{number}", 10) for number in range(8)]
    assert sum(await asyncio.gather(*asked)) == 1


@pytest.mark.parametrize("model_id", ["a\0b", "\udfff"], ids=ascii)
async def test_ids_that_are_no_text_are_refused(bench, model_id):
    for call in (
        bench.models.remove(model_id),
        bench.models.desired([model_id]),
        bench.models.advance(model_id),
        bench.models.advance("sd", model_id),
        bench.models.reports(model_id, 1),
        bench.models.take_turn(model_id, "r1", 1),
        bench.models.end_turn("sd", model_id),
    ):
        with pytest.raises(errors.InvalidRequest):
            await call
