"""Uploads that meet a store with moods."""

import asyncio
import base64

import pytest

from serve_app import errors
from serve_app.config import StorageConfig
from serve_app.storage import Uploader
from serve_app.testing.storage import MemoryStore
from serve_app.types import OutputPlan, Picture, Pictures

KEYS = ("generations/0-a.png", "generations/1-a.png")
PICTURES = Pictures(
    pictures=(Picture(b"one", 8, 8), Picture(b"two", 8, 8)),
    nsfw=(False, True),
    generation_time_s=1.5,
    ran={"steps": 3},
)


class MoodyStore(MemoryStore):
    """Fails the first `failures` writes; with `truncates`, it keeps half of what it is given."""

    def __init__(self, failures=0, truncates=False):
        super().__init__()
        self.failures = failures
        self.truncates = truncates

    async def put(self, key, data, media_type):
        self.failures -= 1
        if self.failures >= 0:
            raise errors.StorageUnavailable("down")
        await super().put(key, data[: len(data) // 2] if self.truncates else data, media_type)


async def test_store_writes_every_picture_and_tells_what_ran():
    files = MemoryStore()
    result = await Uploader(files, StorageConfig()).store(OutputPlan(keys=KEYS), PICTURES)
    assert [await files.get(key) for key in KEYS] == [b"one", b"two"]
    assert (result.keys, result.nsfw, result.ran) == (KEYS, (False, True), {"steps": 3})


async def test_store_as_base64_writes_text():
    files = MemoryStore()
    await Uploader(files, StorageConfig()).store(OutputPlan(keys=KEYS, base64=True), PICTURES)
    assert base64.b64decode(await files.get(KEYS[0]), validate=True) == b"one"


async def test_store_keeps_hints_as_pictures_beside_base64():
    files, plan = MemoryStore(), OutputPlan(keys=KEYS, base64=True, hint_keys=("generations/h",))
    await Uploader(files, StorageConfig()).store(plan, PICTURES, (Picture(b"hint", 8, 8),))
    assert await files.get("generations/h") == b"hint"


async def test_store_that_is_down_for_a_moment_is_tried_again():
    files = MoodyStore(failures=2)
    await Uploader(files, StorageConfig()).store(OutputPlan(keys=KEYS), PICTURES)
    assert await files.get(KEYS[1]) == b"two"


@pytest.mark.parametrize("moods", [{"failures": 99}, {"truncates": True}], ids=["down", "half"])
async def test_store_that_stays_bad_is_unavailable_in_time(moods):
    uploader = Uploader(MoodyStore(**moods), StorageConfig(upload_retry_s=0.3))
    async with asyncio.timeout(30):
        with pytest.raises(errors.StorageUnavailable):
            await uploader.store(OutputPlan(keys=KEYS), PICTURES)
