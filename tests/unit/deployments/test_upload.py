"""Upload by itself: results in the format that was asked for."""

import io

import numpy as np
import pytest
from PIL import Image

from deployments.upload import Upload
from serve_app.config import LoggingConfig, StorageConfig
from serve_app.images import codec
from serve_app.storage import names, open_store
from serve_app.types import OutputPlan, PictureFormat, Pictures


def picture():
    ramp = np.linspace(0, 255, 64, dtype=np.uint8)
    return codec.encode(
        Image.fromarray(np.stack(np.broadcast_arrays(ramp, ramp[:, None], np.uint8(90)), 2))
    )


@pytest.mark.parametrize("form", PictureFormat)
async def test_pictures_are_stored_in_the_asked_format_with_its_name_and_quality(tmp_path, form):
    upload = Upload(StorageConfig(), tmp_path, LoggingConfig())
    files = open_store(StorageConfig(), tmp_path)
    pictures = Pictures((picture(),), nsfw=(False,), generation_time_s=1.0, ran={})
    sizes = []
    for quality in (95, 10):
        keys = names.reserve(1, form=form)
        plan = OutputPlan(keys=keys, format=form, quality=quality)
        result = await upload.store(plan, pictures)
        assert result.keys == keys
        data = await files.get(keys[0])
        with Image.open(io.BytesIO(data)) as stored:
            assert (stored.format, stored.size) == (form.value.upper(), (64, 64))
            off = np.abs(np.asarray(stored, int) - np.asarray(codec.to_image(picture()), int))
        assert off.mean() < (1 if form is PictureFormat.PNG else 12)
        assert names.media_type(keys[0]) == f"image/{form}"
        sizes.append(len(data))
    assert (sizes[0] > sizes[1]) is (form is not PictureFormat.PNG)
