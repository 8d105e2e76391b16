"""Which upscaler a request gets, and what is said where it cannot be had."""

from pathlib import Path

import pytest

from serve_app.api.requests import upscaler
from serve_app.api.requests.schemas import GenerationBody
from serve_app.config import HttpConfig
from serve_app.models import AddOn, Catalogue, ModelEntry
from serve_app.types import Kind


def add_on(name, *models):
    return AddOn(id=name, type="upscaler", source=Path("x"), models=models)


def found(own, default, factor):
    """Ask for a model that names an upscaler of its own, or none; return it and the problems."""
    entry = ModelEntry(id="m", source=Path("x"), kinds=tuple(Kind), upscaler=own)
    other = entry.model_copy(update={"id": "other", "upscaler": None})
    nets = [add_on("sharp"), add_on("soft"), add_on("theirs", "other")]
    given = (
        GenerationBody(upscale=factor), entry, Catalogue([entry, other], nets),
        HttpConfig(upscaler=default),
    )  # fmt: skip
    return upscaler.of(*given), upscaler.problems(*given)


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize(
    ("own", "default", "wanted"),
    [
        (None, None, None),
        ("sharp", None, "sharp"),
        ("sharp", "soft", "sharp"),
        (None, "soft", "soft"),
        (None, "theirs", None),
    ],
)
def test_models_own_upscaler_comes_before_that_of_all(own, default, wanted, factor):
    assert found(own, default, factor) == (wanted, {})
    assert found(own, default, 1) == (None, {}), "nothing is enlarged"


@pytest.mark.parametrize(
    ("own", "default", "text"),
    [
        ("gone", None, "No upscaler of the id gone is in the catalogue."),
        (None, "gone", "No upscaler of the id gone is in the catalogue."),
        ("theirs", "sharp", "The upscaler theirs is not for the model m."),
    ],
)
def test_upscaler_that_cannot_be_had_is_told(own, default, text):
    assert found(own, default, 2)[1] == {"upscale": [text]}
    assert found(own, default, 1)[1] == {}
