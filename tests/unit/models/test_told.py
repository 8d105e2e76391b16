"""Defaults of an entry that follow the family of its files."""

import pytest
import yaml

from serve_app.config import CatalogueConfig
from serve_app.models import AddOn, Catalogue, ModelEntry
from serve_app.models.registry import Registry, judge_files
from serve_app.models.weights.told import with_told
from serve_app.testing.models import MemoryModelStore
from serve_app.types import Kind
from tests import community_files
from tests.unit.models.test_inspect_folder import pipeline

CONFIG = CatalogueConfig()


def entry(source, **changes):
    return ModelEntry(id="m", source=source, kinds=tuple(Kind), **changes)


def look(entry):
    return (entry.category, entry.native_size_px, entry.size_multiple_px, entry.dtype)


SD, XL = ("stable_diffusion", 512, 8, "float32"), ("stable_diffusion_xl", 1024, 8, "auto")


@pytest.mark.parametrize(
    ("layout", "wanted"),
    [
        ("sd1", SD),
        ("sd2", SD),
        ("sdxl", XL),
        ("sd3-transformer", ("stable_diffusion_3", 1024, 16, "auto")),
        ("flux-dev", ("flux", 1024, 16, "auto")),
        ("lora-sd1-kohya", SD),
    ],
)
def test_family_of_a_file_gives_what_its_entry_leaves_open(tmp_path, layout, wanted):
    file = community_files.write_named(tmp_path, layout)
    assert look(with_told(entry(file.name), CONFIG, tmp_path)) == wanted


def test_stable_diffusion_2_that_predicts_velocity_is_larger(tmp_path):
    said = {"prediction_type": "v_prediction"}
    folder = pipeline(tmp_path / "x", unet={"cross_attention_dim": 1024}, scheduler=said)
    assert look(with_told(entry(folder), CONFIG, tmp_path)) == (SD[0], 768, *SD[2:])


def test_entry_has_the_last_word(tmp_path):
    file = community_files.write_named(tmp_path, "sdxl")
    said = entry(file, native_size_px=768, dtype="float32")
    assert look(with_told(said, CONFIG, tmp_path)) == (XL[0], 768, XL[2], "float32")
    whole = entry(file, native_size_px=768, category="stable_diffusion")
    assert with_told(whole, CONFIG, tmp_path) is whole


def test_category_alone_gives_size_and_dtype():
    assert look(entry("nowhere", category="stable_diffusion_xl")) == XL


def test_what_cannot_be_looked_at_stays_as_it_is(tmp_path):
    (tmp_path / "bad.safetensors").write_text("no weights")
    for said in (
        entry(tmp_path / "bad.safetensors"),
        entry("nowhere"),
        entry("x" * 4000),
        entry({"hub": "acme/xl"}),
        AddOn(id="a", type="lora", source="nowhere"),
    ):
        assert with_told(said, CONFIG, tmp_path) is said


def test_catalogue_looks_at_files(tmp_path):
    file = community_files.write_named(tmp_path, "sdxl")
    said = {"id": "xl", "source": file.name, "kinds": ["text2img"]}
    (tmp_path / "xl.yaml").write_text(yaml.safe_dump(said))
    config = CatalogueConfig(path=tmp_path)
    assert look(Catalogue.load(config, tmp_path).get("xl")) == XL


async def test_entry_that_is_added_gets_what_its_file_tells(tmp_path):
    file = community_files.write_named(tmp_path, "sdxl")
    store = MemoryModelStore()
    judge = judge_files(CONFIG, tmp_path)
    await Registry(Catalogue([]), store, has_pool=True, judge=judge).add(entry(file.name))
    (added,) = await store.entries()
    assert look(added) == XL
    assert str(added.source) == file.name
