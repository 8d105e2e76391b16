"""Copies in CPU memory: a model comes back from them as its files would give it."""

import diffusers
import pytest
import torch

from serve_app import errors
from serve_app.config import CatalogueConfig, EngineConfig
from serve_app.models import AddOn, ModelEntry
from serve_app.models.protocol import Desired
from serve_app.pipelines import loader
from serve_app.pipelines.duplicate import duplicate
from serve_app.pipelines.host import HostCopies
from serve_app.replica.weights import CatalogueWeights
from serve_app.testing.checkpoints import write_random_text2img
from serve_app.types import Kind, LoraUse
from tests.builders import spec
from tests.engine.test_addons import finder, write_lora
from tests.weight_files import UNET, rewrite

pytestmark = pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute")
CPU = EngineConfig(device="cpu", measure_rows=False)
GB = 10**9


@pytest.fixture
def folder(tmp_path):
    write_random_text2img(tmp_path / "model")
    return tmp_path / "model"


def load(folder, host, add_ons=(), **facts):
    facts = {"source": folder, "kinds": tuple(Kind), "native_size_px": 64} | facts
    entry = ModelEntry(id="tiny", **facts)
    weights = CatalogueWeights(entry, finder(add_ons), CatalogueConfig(), CPU, host)
    return weights.find(Desired(model_id="tiny")).load()


async def painted(painter, **wishes):
    try:
        return (await painter.paint(1, spec(**wishes), None)).pictures[0].data
    finally:
        painter.close()


def no_files(*_args):
    raise AssertionError("files were read")


@pytest.mark.slow
async def test_copy_paints_what_the_files_paint(folder, monkeypatch):
    host = HostCopies(GB)
    before = await painted(load(folder, None))
    await painted(load(folder, host))
    monkeypatch.setattr(loader, "_read", no_files)
    assert await painted(load(folder, host)) == before
    assert host.snapshot().hits == 1


@pytest.mark.slow
async def test_what_requests_added_does_not_stick_to_the_copy(folder, tmp_path):
    write_lora(folder, tmp_path / "ink")
    source = tmp_path / "ink" / diffusers.loaders.lora_pipeline.LORA_WEIGHT_NAME_SAFE
    add_ons, host = [AddOn(id="ink", type="lora", source=source)], HostCopies(GB)
    with_ink = await painted(load(folder, host, add_ons), loras=(LoraUse(id="ink", strength=1.0),))
    without = await painted(load(folder, host, add_ons))
    assert without == await painted(load(folder, None)) != with_ink


@pytest.mark.slow
async def test_new_files_are_read(folder):
    host = HostCopies(GB)
    before = await painted(load(folder, host))
    rewrite(folder, UNET, lambda tensors: tensors["conv_out.weight"].mul_(2))
    assert await painted(load(folder, host)) != before
    assert host.snapshot().hits == 0


@pytest.mark.slow
def test_another_dtype_is_another_copy(folder):
    host = HostCopies(GB)
    for dtype in ("float32", "bfloat16"):
        painter = load(folder, host, dtype=dtype)
        assert painter._checkpoint.base.dtype is getattr(torch, dtype)
        painter.close()
    assert host.snapshot().held == 2


def test_weights_that_do_not_paint_are_not_kept(folder):
    host = HostCopies(GB)
    rewrite(folder, UNET, lambda tensors: tensors["conv_out.weight"].fill_(float("nan")))
    with pytest.raises((ValueError, errors.GenerationFailed)):
        load(folder, host)
    assert host.snapshot().held == 0


@pytest.mark.slow
async def test_model_beyond_the_budget_is_served_without_a_copy(folder):
    host = HostCopies(10)
    assert await painted(load(folder, host)) == await painted(load(folder, None))
    assert host.snapshot().used_bytes == 0


def test_device_without_room_costs_no_copy(folder, monkeypatch):
    host = HostCopies(GB)
    load(folder, host).close()

    def full(*_args):
        raise MemoryError

    monkeypatch.setattr(loader, "family_of", full)
    with pytest.raises(errors.OutOfMemory):
        load(folder, host)
    assert host.snapshot().held == 1


def test_files_overwritten_in_place_do_not_reach_the_copy(folder):
    host = HostCopies(GB)
    load(folder, host).close()
    (digest,) = host._copies
    for file in folder.rglob("*.safetensors"):
        file.write_bytes(b"")
    kept = host.get(digest, no_files)
    copy = duplicate(kept, loader._modules(kept).values(), torch.device("cpu"))
    assert all(torch.isfinite(weight).all() for weight in copy.unet.parameters())


@pytest.mark.slow
def test_entries_of_one_copy_keep_what_each_says_of_the_training(folder):
    """The copy is shared by files and dtype; what entries correct must not come to another."""
    host = HostCopies(GB)

    def trained(**said):
        entry = ModelEntry(id="one", source=folder, kinds=(Kind.TEXT2IMG,), **said)
        made = loader.load_checkpoint(entry, CPU, host, "copy").schedulers.make(spec())
        return made.config.prediction_type, bool(made.config.get("rescale_betas_zero_snr"))

    as_files_say = trained()
    assert as_files_say == ("epsilon", False)
    assert trained(prediction_type="v_prediction", zero_snr=True) == ("v_prediction", True)
    assert trained() == as_files_say
