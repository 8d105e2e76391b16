"""The catalogue reads model files and finds models."""

from pathlib import Path

import pytest

from serve_app import errors
from serve_app.config import CatalogueConfig
from serve_app.models import Catalogue
from serve_app.models.catalogue import CatalogueError
from serve_app.types import Kind

ENTRY = "id: {id}\nsource: weights/{id}\nkinds: [inpaint]\n"


def load(folder, *ids, models=None):
    for number, model_id in enumerate(ids):
        (folder / f"{number}.yaml").write_text(ENTRY.format(id=model_id))
    return Catalogue.load(CatalogueConfig(path=folder, models=models), Path("/root-dir"))


def test_catalogue_resolves_sources_from_the_root(tmp_path):
    entry = load(tmp_path, "a").find("a", Kind.INPAINT)
    assert entry.source == Path("/root-dir/weights/a")


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


def test_known_model_of_another_kind_is_not_served(tmp_path):
    with pytest.raises(errors.NotServed, match="text2img"):
        load(tmp_path, "a").find("a", Kind.TEXT2IMG)
