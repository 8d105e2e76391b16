"""What a job asks of the denoiser goes by its model, and by its own size where that is gone."""

from pathlib import Path

import pytest

from serve_app.config import EngineConfig
from serve_app.models import Catalogue, CatalogueView, ModelEntry
from serve_app.service.work import work_of
from serve_app.testing.models import MemoryModelStore
from serve_app.types import Kind
from tests.builders import spec

MODEL = ModelEntry(
    id="tiny", source="w", kinds=(Kind.TEXT2IMG,), native_size_px=80, size_multiple_px=64
)
CONFIG = EngineConfig(painter="fake", highres_strength=0.5)


@pytest.mark.parametrize(("models", "first_px"), [((MODEL,), 64), ((), 0)], ids=["here", "gone"])
def test_enlarged_job_begins_at_the_size_of_its_model(models, first_px):
    """`highres_fix` paints all steps there, and half of them at the full size."""
    view = CatalogueView(Catalogue(models), MemoryModelStore(), Path())
    plain = spec(height=192, width=192, steps=10, guidance_scale=7.5)
    whole = 2 * 10 * 192 * 192 / 1e6
    assert work_of(view, CONFIG, plain) == pytest.approx(whole)
    enlarged = work_of(view, CONFIG, plain.model_copy(update={"highres_fix": True}))
    first = 2 * 10 * first_px * first_px / 1e6
    assert enlarged == pytest.approx(first + whole / 2 if models else whole)
