"""Pictures that clients hand in: where they are kept, and what a refusal names."""

import base64

import pytest

from serve_app import errors
from serve_app.config import ImagesConfig
from serve_app.service.uploads import Uploads
from serve_app.testing.graph import FakeGraph
from serve_app.testing.storage import MemoryStore
from serve_app.types import ImageSource, OutputPlan

MOST = 5 * 1024 * 1024  # bytes that may be published


class Scene:
    def __init__(self, **settings):
        self.files, self.graph = MemoryStore(), FakeGraph()
        self.uploads = Uploads(self.files, self.graph, ImagesConfig(**settings))


def inline(size):
    return base64.b64encode(bytes(size)).decode()


async def test_source_of_an_input_names_its_field():
    scene = Scene()
    kept = await scene.uploads.keep("mask_image", inline(5))
    assert kept == ImageSource(field="mask_image", stored_key=kept.stored_key)
    assert kept.stored_key.startswith("inputs/")
    assert await scene.files.get(kept.stored_key) == bytes(5)
    linked = await scene.uploads.keep("init_image", "http://a.example/b.png")
    assert linked == ImageSource(field="init_image", url="http://a.example/b.png")


async def test_input_may_have_as_many_bytes_as_the_settings_say():
    scene = Scene(max_bytes=1024)
    await scene.uploads.keep("init_image", inline(1024))
    with pytest.raises(errors.InvalidImage) as caught:
        await scene.uploads.keep("init_image", inline(1025))
    assert caught.value.field == "init_image"


@pytest.mark.parametrize(("max_bytes", "most"), [(20 * 1024 * 1024, MOST), (1024, 1024)])
async def test_published_picture_has_five_megabytes_at_most_and_no_more_than_an_input(
    max_bytes, most
):
    scene = Scene(max_bytes=max_bytes)
    key = await scene.uploads.publish("image", inline(most), crop=True)
    assert scene.graph.published == [
        ("image", bytes(most), OutputPlan(keys=(key,), temp=True), True)
    ]
    with pytest.raises(errors.InvalidImage):
        await scene.uploads.publish("image", inline(most + 1), crop=True)
    assert len(scene.graph.published) == 1


async def test_link_cannot_be_published():
    with pytest.raises(errors.InvalidImage) as caught:
        await Scene().uploads.publish("image", "http://a.example/b.png", crop=False)
    assert caught.value.field == "image"
    assert "must be base64 or a data URI" in caught.value.detail
