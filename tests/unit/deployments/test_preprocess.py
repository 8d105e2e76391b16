"""Preprocess by itself: which pictures it makes of which sources."""

import io
import sys

import pytest
from PIL import Image

from deployments.preprocess import Preprocess
from deployments.stage import StageFailure
from serve_app import errors
from serve_app.config import ImagesConfig, LoggingConfig, StorageConfig
from serve_app.images.codec import to_image
from serve_app.storage import open_store
from serve_app.types import ControlType, ImageSource, Outpaint, Size

SIZE = Size(height=16, width=24)


@pytest.fixture
async def sources(tmp_path):
    """Three stored pictures, by the field that brought them; the last is no picture."""
    files = open_store(StorageConfig(), tmp_path)
    kept = {}
    for field, colour in (("init_image", "red"), ("mask_image", "white"), ("ip_adapter_image", "")):
        buffer = io.BytesIO()
        if colour:
            Image.new("RGB", (60, 40), colour).save(buffer, "PNG")
        await files.put(f"inputs/{field}", buffer.getvalue(), "image/png")
        kept[field] = ImageSource(field=field, stored_key=f"inputs/{field}")
    return kept


@pytest.fixture
async def preprocess(tmp_path):
    images = ImagesConfig(ip_adapter_side_px=64)
    preprocess = Preprocess(images, StorageConfig(), tmp_path, LoggingConfig())
    yield preprocess
    await preprocess.isolation.aclose()


@pytest.fixture
def prepare(preprocess):
    return preprocess.prepare


async def test_each_source_has_its_place(prepare, sources):
    init, mask, _ = sources.values()
    images = await prepare(SIZE, init, mask, init)
    assert to_image(images.init).size == to_image(images.mask).size == (24, 16)
    assert to_image(images.ip_adapter).size == (60, 40)


async def test_picture_for_an_ip_adapter_can_come_alone(prepare, sources):
    images = await prepare(SIZE, None, None, sources["init_image"])
    assert (images.init, images.mask) == (None, None)
    assert to_image(images.ip_adapter).getpixel((0, 0)) == (255, 0, 0)


async def test_bad_picture_is_named_by_its_field(prepare, sources):
    failure = await prepare(SIZE, None, None, sources["ip_adapter_image"])
    assert isinstance(failure, StageFailure)
    assert failure.error.field == "ip_adapter_image"


@pytest.mark.slow
@pytest.mark.parametrize(("crop", "size"), [(False, (60, 40)), (True, (40, 40))])
async def test_inline_picture_becomes_one_of_ours(preprocess, crop, size):
    buffer = io.BytesIO()
    Image.new("RGB", (60, 40), "red").save(buffer, "JPEG")
    made = await preprocess.reencode("image", buffer.getvalue(), crop)
    (picture,) = made.pictures
    assert to_image(picture).size == size
    assert made.nsfw == (False,)


async def test_inline_data_that_is_no_picture_is_named_by_its_field(preprocess):
    failure = await preprocess.reencode("base64_string", b"<svg/>", False)
    assert failure.error.field == "base64_string"


async def test_replica_is_healthy_once_its_workers_run(preprocess, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(errors.ReplicaLost):
            await preprocess.check_health()


async def test_lost_workers_are_reported_by_cause(preprocess, monkeypatch):
    seen = []

    def inc(self, value, tags):
        seen.append((self.info["name"], value, tags))

    monkeypatch.setattr("deployments.metrics.Counter.inc", inc)
    preprocess.isolation.workers_lost["time"] += 2
    for _ in range(2):
        await preprocess.check_health()
    assert seen == [("dreamserve_picture_workers_lost_total", 2, {"cause": "time"})]
    await preprocess.check_health()


async def test_controls_are_made_of_the_control_picture_or_of_init(prepare, sources):
    init, mask, _ = sources.values()
    hints = (ControlType.GRAY, None)
    both = await prepare(SIZE, init, None, None, mask, hints)
    assert [to_image(one).getpixel((0, 0)) for one in both.controls] == [(255, 255, 255)] * 2
    own = await prepare(SIZE, init, mask, None, None, hints)
    assert [to_image(one).getpixel((0, 0)) for one in own.controls] == [(76,) * 3, (255, 0, 0)]
    assert {to_image(one).size for one in own.controls} == {(24, 16)}


async def test_control_picture_can_come_alone(prepare, sources):
    images = await prepare(SIZE, None, None, None, sources["init_image"], (None,))
    assert (images.init, images.mask, len(images.controls)) == (None, None, 1)


async def test_bad_control_picture_is_named_by_its_field(prepare, sources):
    failure = await prepare(SIZE, None, None, None, sources["ip_adapter_image"], (None,))
    assert isinstance(failure, StageFailure)
    assert failure.error.field == "ip_adapter_image"


async def test_mask_of_openais_call_is_read_as_one(prepare, sources):
    init, mask, _ = sources.values()
    small = await prepare(SIZE, init, mask.model_copy(update={"is_alpha_mask": True}))
    assert to_image(small.mask).getextrema() == (255, 255)  # of the same size, and white
    other = await prepare(SIZE, mask, mask.model_copy(update={"is_alpha_mask": False}))
    assert other.mask is not None


def _growing(**sides):
    bounds = {"overlap_px": 8, "multiple_px": 8, "max_side_px": 512, "max_area_px": 512**2}
    return Size(height=40, width=64, outpaint=Outpaint(**sides, **bounds))


async def test_controls_of_a_picture_that_grows_see_the_whole_of_it(prepare, sources):
    init, _, _ = sources.values()
    images = await prepare(_growing(right=36), init, None, None, None, (ControlType.GRAY, None))
    assert to_image(images.init).size == to_image(images.mask).size == (96, 40)
    assert {to_image(one).size for one in images.controls} == {(96, 40)}


async def test_picture_that_would_grow_too_large_is_refused_by_a_worker(prepare, sources):
    failure = await prepare(_growing(right=4000), sources["init_image"], None)
    assert isinstance(failure, StageFailure)
    assert failure.error.field == "outpaint"
    assert "4064 x 40 pixels" in str(failure.error)
