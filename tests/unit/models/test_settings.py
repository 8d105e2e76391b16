"""The settings of single files that have none beside them, by what their headers tell."""

from pathlib import Path

import pytest

from serve_app.config import CatalogueConfig
from serve_app.models import ModelEntry
from serve_app.models.bases.base import BASES
from serve_app.models.inspect import inspect
from serve_app.models.weights.files import Refused
from serve_app.models.weights.settings import base_of, settings_folder, training_of
from serve_app.types import Kind
from tests import community_files


def entry(**changes):
    return ModelEntry(id="m", source=Path("x"), kinds=tuple(Kind), **changes)


@pytest.fixture
def found(tmp_path):
    return lambda name: inspect(community_files.write_named(tmp_path, name))


@pytest.mark.parametrize(
    ("name", "changes", "base"),
    [
        ("sd1", {}, "sd1"),
        ("sd2", {"prediction_type": "epsilon"}, "sd2"),
        ("sdxl", {}, "sdxl"),
        ("sd3-medium", {}, "sd3-medium"),
        ("sd35-medium", {}, "sd3.5-medium"),
        ("sd35-large", {}, "sd3.5-large"),
        ("flux-dev", {"text_encoders": "t"}, "flux-dev"),
        ("flux-schnell", {"text_encoders": "t"}, "flux-schnell"),
    ],
)
def test_settings_are_those_of_the_architecture(found, name, changes, base):
    assert base_of(entry(**changes), found(name)) == BASES[base]


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl"])
def test_file_for_inpainting_sees_a_mask(found, name, tmp_path):
    base = base_of(entry(), found(f"{name}-inpainting"))
    assert base == BASES[name].for_inpainting()
    config = CatalogueConfig(cache_dir=tmp_path / "cache")
    assert settings_folder(entry(), found(f"{name}-inpainting"), config) == base.write(
        config.cache_dir
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("lora-sd1-kohya", "expected a model of a known architecture"),
        ("sd1-pix2pix", "expected a model of a known architecture"),
        ("sdxl-refiner", "expected a model of a known architecture"),
        ("flux-dev", "reads prompts with T5"),
        ("sd2", "does not tell what its model predicts"),
    ],
)
def test_file_that_does_not_tell_all_is_refused(found, name, reason):
    with pytest.raises(Refused, match=reason):
        base_of(entry(), found(name))


def test_training_is_what_the_file_tells_and_the_entry_leaves_open(found):
    told = found("sdxl-v-zsnr")
    assert training_of(entry(), told) == {"zero_snr": True, "prediction_type": "v_prediction"}
    assert training_of(entry(zero_snr=False, prediction_type="epsilon"), told) == {}
    assert training_of(entry(), found("sd3-medium")) == {}
    with pytest.raises(Refused, match="which is not served"):
        training_of(entry(), found("sdxl-edm"))
