"""Painters without torch take as long to load as they are told to."""

import time
from pathlib import Path

from serve_app.config import EngineConfig
from serve_app.models import ModelEntry
from serve_app.replica import factory
from serve_app.types import Kind


def test_load_of_a_fake_painter_takes_the_time_of_the_setting(monkeypatch):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    entry = ModelEntry(id="m", source=Path("nowhere"), kinds=tuple(Kind))
    settings = EngineConfig(painter="fake", fake_load_s=2.5)
    factory.painter_factory(settings).make(entry).close()
    assert slept == [2.5]
