"""A painter that is closed: nothing of it runs on."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from serve_app import errors
from serve_app.engine.request import Request
from serve_app.pipelines.loader import load_checkpoint
from serve_app.pipelines.painter import WeavePainter
from serve_app.types import GenerationSpec
from tests.engine.weaving import CPU, entry_of


async def test_painter_that_is_closed_has_no_threads_and_takes_no_jobs(
    folder: Callable[[str], Path], make_spec: Callable[..., GenerationSpec]
) -> None:
    entry = entry_of(folder("plain"))
    checkpoint = load_checkpoint(entry, CPU)  # by libraries with threads that stay
    others = set(threading.enumerate())
    painter = WeavePainter(entry, CPU, checkpoint)
    pools = ("_pool", "_fetches", "_loads", "_hints", "_upscales")
    for pool in (*(getattr(painter, name) for name in pools), painter._previews._threads):
        pool.submit(int).result(30)  # a thread begins with the first work
    own = set(threading.enumerate()) - others
    assert len(own) > len(pools) + 1, "the engine's too"
    painter.close()
    for thread in own:
        thread.join(10)
    assert [thread.name for thread in own if thread.is_alive()] == []
    with pytest.raises(errors.ReplicaLost):
        await painter.paint(1, make_spec(), None)
    with pytest.raises(errors.ReplicaLost):
        painter._engine.submit(Request(lambda: None)).result(10)
