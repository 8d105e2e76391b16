"""Which painters the settings name; those without torch load as long as they are told to."""

import gc
import time
import weakref
from pathlib import Path

import pytest
import torch

from serve_app import errors
from serve_app.config import EngineConfig
from serve_app.models import ModelEntry
from serve_app.models.entry import HubSource
from serve_app.replica import factory
from serve_app.replica.factory import FakeFactory, WeaveFactory, copy_key, painter_factory
from serve_app.types import Kind
from tests.builders import spec


def test_load_of_a_fake_painter_takes_the_time_of_the_setting(monkeypatch):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    entry = ModelEntry(id="m", source=Path("nowhere"), kinds=tuple(Kind))
    settings = EngineConfig(painter="fake", fake_load_s=2.5)
    factory.painter_factory(settings).make(entry).close()
    assert slept == [2.5]


def entry(source=Path("nowhere"), **changes):
    return ModelEntry(id="m", source=source, kinds=(Kind.TEXT2IMG,), **changes)


def make(name, **settings):
    return painter_factory(EngineConfig(painter=name, device="cpu", **settings))


def test_painters_are_those_of_the_setting():
    assert isinstance(make("fake"), FakeFactory)
    assert isinstance(make("weave"), WeaveFactory)


def test_only_painters_that_paint_need_files_that_are_not_there(tmp_path):
    for source in (tmp_path, HubSource(hub="some/model")):
        assert make("fake").needs_files(entry(source)) is True
    assert make("fake").needs_files(entry(tmp_path / "gone")) is False
    assert make("weave").needs_files(entry(tmp_path / "gone")) is True


def test_dtype_is_settled_by_the_device_where_the_entry_leaves_it_open():
    left_open, said = entry(dtype="auto"), entry(dtype="float16")
    assert make("weave").settle(left_open).dtype == "float32"
    assert make("weave").settle(said) == said
    assert make("fake").settle(left_open) == left_open


async def test_fake_painter_paints_what_the_entry_can():
    made = make("fake", fake_step_s=0.25)
    painter = made.make(entry(native_size_px=64))
    slow = await painter.paint(1, spec(steps=1), None)
    assert slow.cost.device_s == 0.25
    with pytest.raises(errors.DreamserveError):
        await painter.paint(2, spec(kind=Kind.IMG2IMG), None)
    other = await made.make(entry(native_size_px=64), mark="b").paint(1, spec(steps=1), None)
    assert other.pictures[0].data != slow.pictures[0].data


@pytest.mark.parametrize("failure", [torch.OutOfMemoryError("12 GiB"), MemoryError("12 GiB")])
def test_memory_that_does_not_suffice_is_no_fault_of_the_weights(monkeypatch, failure):
    def load(*_given):
        raise failure

    monkeypatch.setattr("serve_app.pipelines.loader.load_checkpoint", load)
    with pytest.raises(errors.OutOfMemory):
        make("weave").make(entry())


def test_copies_are_told_apart_by_files_dtype_and_variant():
    entries = [entry(), entry(dtype="float16"), entry(variant="fp16")]
    keys = {copy_key(digest, one) for digest in ("a", "b") for one in entries}
    assert len(keys) == 6
    assert copy_key("a", entry()) == copy_key("a", entry(source=Path("elsewhere")))


class Ring:
    """Refers to itself, so that only a collection frees it."""

    def __init__(self):
        self.me = self


@pytest.mark.parametrize(("name", "times"), [("fake", 0), ("weave", 1)])
def test_memory_of_the_device_is_freed_where_painters_have_some(monkeypatch, name, times):
    freed = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append(1))
    make(name).tidy()
    assert len(freed) == times


@pytest.mark.parametrize("name", ["fake", "weave"])
def test_what_nothing_refers_to_is_freed(name):
    gc.disable()
    try:
        gone = weakref.ref(Ring())
        make(name).tidy()
        assert gone() is None
    finally:
        gc.enable()
