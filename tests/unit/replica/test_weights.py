"""The weights of a catalogue entry: found, judged, loaded; real ones and the fake painter's."""

import gc
import shutil
import weakref

import pytest
import torch

from serve_app import errors
from serve_app.config import CatalogueConfig, EngineConfig
from serve_app.models import ModelEntry
from serve_app.models.protocol import Desired
from serve_app.replica.weights import CatalogueWeights
from serve_app.testing.checkpoints import write_random_text2img
from serve_app.types import Kind
from tests.builders import spec
from tests.weight_files import HARM, UNET, rewrite

WANTED = Desired(model_id="tiny", weights_version=1)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("good")
    write_random_text2img(folder)
    return folder


@pytest.fixture
def folder(good, tmp_path):
    return shutil.copytree(good, tmp_path / "model")


def weights(source, painter="weave", **changes):
    entry = ModelEntry(id="tiny", source=source, kinds=tuple(Kind), native_size_px=64, **changes)
    engine = EngineConfig(device="cpu", measure_rows=False, painter=painter)
    return CatalogueWeights(entry, lambda *_: None, CatalogueConfig(), engine)


async def picture(source, painter):
    loaded = weights(source, painter=painter).find(WANTED).load()
    try:
        return (await loaded.paint(1, spec(), None)).pictures[0].data
    finally:
        loaded.close()


@pytest.mark.parametrize("painter", ["fake", "weave"])
async def test_other_weights_paint_another_picture(folder, painter):
    before = await picture(folder, painter)
    rewrite(folder, UNET, lambda tensors: tensors["conv_out.weight"].mul_(1.5))
    assert await picture(folder, painter) != before


@pytest.mark.parametrize("harm", HARM)
def test_bad_weights_are_not_loaded(folder, harm):
    HARM[harm](folder)
    with pytest.raises((errors.WeightsRefused, ValueError)):
        weights(folder).find(WANTED).load()


@pytest.mark.parametrize("harm", ["truncated", "nan"])
def test_check_tells_bad_files_without_loading(folder, harm):
    found = weights(folder).find(WANTED)
    HARM[harm](folder)
    with pytest.raises(Exception, match=r"NaN|incomplete"):
        found.check()


@pytest.mark.parametrize("painter", ["fake", "weave"])
def test_files_that_differ_from_the_manifest_are_refused(folder, painter):
    with pytest.raises(errors.WeightsRefused, match="sha256"):
        weights(folder, painter=painter, sha256={UNET: "0" * 64}).find(WANTED)


def test_files_that_change_while_they_load_are_refused(folder, monkeypatch):
    found = weights(folder, painter="fake").find(WANTED)

    def change_and_make(*_args):
        rewrite(folder, UNET, lambda tensors: tensors["conv_out.weight"].mul_(2))
        return closing

    class Closing:
        is_closed = False

        def close(self):
            self.is_closed = True

    closing = Closing()
    monkeypatch.setattr("serve_app.replica.factory.FakeFactory.make", change_and_make)
    with pytest.raises(errors.WeightsRefused, match="changed"):
        found.load()
    assert closing.is_closed


async def test_files_overwritten_in_place_do_not_reach_weights_that_serve(folder):
    painter = weights(folder).find(WANTED).load()
    before = (await painter.paint(1, spec(), None)).pictures
    for file in folder.rglob("*.safetensors"):
        file.write_bytes(b"")
    assert (await painter.paint(2, spec(), None)).pictures == before
    painter.close()


def test_memory_that_does_not_suffice_is_told_as_such(folder, monkeypatch):
    def load(*_args):
        raise torch.OutOfMemoryError("12 GiB")

    monkeypatch.setattr("serve_app.pipelines.loader.load_checkpoint", load)
    with pytest.raises(errors.OutOfMemory):
        weights(folder).find(WANTED).load()


def test_closed_painter_leaves_no_weights_in_memory(folder):
    source = weights(folder)
    painter = source.find(WANTED).load()
    unet = weakref.ref(painter._checkpoint.base.unet)
    painter.close()
    del painter
    source.tidy()
    assert unet() is None, [type(one) for one in gc.get_referrers(unet())]


def test_fake_painter_needs_no_files():
    weights("/nowhere", painter="fake").find(WANTED).load().close()
