"""The catalogue reads model files and finds models."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from serve_app import errors
from serve_app.config import CatalogueConfig
from serve_app.models import AddOn, Catalogue, ModelEntry
from serve_app.models.catalogue import CatalogueError
from serve_app.types import ControlType, Kind

ROOT = Path(__file__).parents[3]
ENTRY = "id: {id}\nsource: weights/{id}\nkinds: [inpaint]\n"


def load(folder, *ids, models=None):
    for number, model_id in enumerate(ids):
        (folder / f"{number}.yaml").write_text(ENTRY.format(id=model_id))
    return Catalogue.load(CatalogueConfig(path=folder, models=models), Path("/root-dir"))


def test_catalogue_resolves_sources_from_the_root(tmp_path):
    entry = load(tmp_path, "a").find("a", Kind.INPAINT)
    assert entry.source == Path("/root-dir/weights/a")


def test_one_option_of_a_deployment_leaves_the_others_as_they_are():
    fields = {"id": "a", "source": "a", "kinds": ["inpaint"]}
    plain = ModelEntry.model_validate(fields).serve
    named = ModelEntry.model_validate(fields | {"serve": {"num_gpus": 1}}).serve
    assert plain.max_ongoing_requests == 256  # all that drivers may send
    assert named == plain.model_copy(update={"num_gpus": 1})


def test_catalogue_serves_only_what_is_named(tmp_path):
    assert [entry.id for entry in load(tmp_path, "a", "b", "c", models=("c", "a"))] == ["c", "a"]


@pytest.mark.parametrize(
    ("ids", "models", "message"),
    [
        (("a", "a"), None, "two models"),
        (("a",), ("b",), "no model file"),
        ((), None, "no model files"),
        (("../etc",), None, "0.yaml"),
    ],
    ids=["equal-ids", "missing", "empty", "path-as-id"],
)
def test_catalogue_refuses_wrong_files(tmp_path, ids, models, message):
    with pytest.raises(CatalogueError, match=message):
        load(tmp_path, *ids, models=models)


@pytest.mark.parametrize("model_id", ["b", "", "../a", "a/b", "A", "a" * 10_000])
def test_unknown_model_is_not_found(tmp_path, model_id):
    with pytest.raises(errors.ModelNotFound):
        load(tmp_path, "a").find(model_id, Kind.INPAINT)


ADD_ON = "id: {id}\ntype: {type}\nsource: addons/{id}\n"


def write_add_on(folder, add_on_id, add_on_type="lora", models=None):
    text = ADD_ON.format(id=add_on_id, type=add_on_type)
    text += "" if models is None else f"models: [{', '.join(models)}]\n"
    (folder / f"x-{add_on_id}-{add_on_type}.yaml").write_text(text)


def test_file_with_a_type_is_an_add_on(tmp_path):
    write_add_on(tmp_path, "l", "lora", models=["a"])
    write_add_on(tmp_path, "v", "vae")
    write_add_on(tmp_path, "e", "embedding", models=["b"])
    catalogue = load(tmp_path, "a", "b")
    assert [entry.id for entry in catalogue] == ["a", "b"]
    fitting = [[item.id for item in catalogue.add_ons if item.fits(one)] for one in ("a", "b")]
    assert fitting == [["l", "v"], ["e", "v"]]
    assert catalogue.find_add_on("l", "lora").source == Path("/root-dir/addons/l")


def net(add_on_id, *control, models=()):
    return AddOn(
        id=add_on_id, type="controlnet", source=Path("nowhere"), control=control, models=models
    )


def test_controlnet_of_a_type_is_the_first_that_fits_the_model():
    models = [ModelEntry(id=one, source=Path("nowhere"), kinds=tuple(Kind)) for one in ("a", "b")]
    nets = [net("plain"), net("for-b", "canny", "tile", models=("b",)), net("for-all", "canny")]
    catalogue = Catalogue(models, nets)
    assert catalogue.find_controlnet(ControlType.CANNY, "a").id == "for-all"
    assert catalogue.find_controlnet(ControlType.CANNY, "b").id == "for-b"
    assert catalogue.find_controlnet(ControlType.TILE, "a") is None
    assert catalogue.find_controlnet(ControlType.DEPTH, "b") is None


@pytest.mark.parametrize(
    ("add_on_id", "add_on_type"), [("l", "vae"), ("a", "lora"), ("x", "lora"), ("../l", "lora")]
)
def test_add_on_of_another_type_or_unknown_is_not_found(tmp_path, add_on_id, add_on_type):
    write_add_on(tmp_path, "l", "lora")
    assert load(tmp_path, "a").find_add_on(add_on_id, add_on_type) is None


def test_add_ons_of_models_that_are_not_served_are_left_out(tmp_path):
    write_add_on(tmp_path, "only-a", models=["a"])
    write_add_on(tmp_path, "both", models=["a", "b"])
    write_add_on(tmp_path, "any")
    catalogue = load(tmp_path, "a", "b", models=("b",))
    assert [(item.id, item.models) for item in catalogue.add_ons] == [("any", ()), ("both", ("b",))]


@pytest.mark.parametrize(
    ("add_ons", "message"),
    [
        ([("a", "lora", None)], "two entries have the id 'a'"),
        ([("l", "lora", None), ("l", "vae", None)], "two entries have the id 'l'"),
        ([("l", "lora", ["nope"])], "l is for models that do not exist: nope"),
        ([("l", "checkpoint", None)], "x-l-checkpoint.yaml"),
    ],
    ids=["id-of-a-model", "id-of-another-type", "unknown-model", "unknown-type"],
)
def test_catalogue_refuses_wrong_add_ons(tmp_path, add_ons, message):
    for add_on in add_ons:
        write_add_on(tmp_path, *add_on)
    with pytest.raises(CatalogueError, match=message):
        load(tmp_path, "a")


def test_shipped_catalogue_is_sound():
    catalogue = Catalogue.load(CatalogueConfig(path=ROOT / "configs" / "models"), ROOT)
    for add_on in catalogue.add_ons:
        assert add_on.source.exists()
        assert add_on.models


@pytest.mark.parametrize(
    ("name", "cls"),
    [("Models", ModelEntry), ("LoRAs, VAEs, embeddings, IP adapters, ControlNets", AddOn)],
)
def test_page_shows_an_entry_that_is_valid(name, cls):
    page = (ROOT / "docs" / "catalogue.md").read_text()
    block = page.partition(f"## {name}\n")[2].partition("```yaml\n")[2].partition("```")[0]
    entry = cls.model_validate(yaml.safe_load(block))
    assert entry.id in ("sd15", "contrast-fix")


def test_page_shows_a_controlnet_that_is_valid():
    page = (ROOT / "docs" / "catalogue.md").read_text()
    (block,) = [part for part in page.split("```") if "type: controlnet" in part]
    entry = AddOn.model_validate(yaml.safe_load(block.removeprefix("yaml")))
    assert entry.control == (ControlType.CANNY,)


def test_control_is_for_controlnets_only():
    with pytest.raises(ValidationError, match="control is for a ControlNet"):
        AddOn(id="ink", type="lora", source="x", control=("canny",))


def test_known_model_of_another_kind_is_not_served(tmp_path):
    with pytest.raises(errors.NotServed, match="text2img"):
        load(tmp_path, "a").find("a", Kind.TEXT2IMG)


@pytest.mark.parametrize("trigger", ["", " ", " ink", "ink ", "ink\n"], ids=repr)
def test_trigger_that_no_prompt_holds_is_refused(trigger):
    values = {"id": "ink", "type": "embedding", "source": "ink.safetensors"}
    assert AddOn.model_validate(values | {"trigger": "two words"}).trigger == "two words"
    with pytest.raises(ValueError, match="pattern"):
        AddOn.model_validate(values | {"trigger": trigger})
