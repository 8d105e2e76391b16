"""Real weights take the memory that their files told, and leave it altogether."""

import weakref

import pytest
import torch

from serve_app.config import AppConfig
from serve_app.models import Catalogue, ModelEntry
from serve_app.replica.cache import ModelCache
from serve_app.replica.pool_loader import PoolLoader
from serve_app.testing.checkpoints import write_random_inpaint
from serve_app.testing.models import MemoryModelStore
from serve_app.types import Kind
from tests.builders import spec


async def test_weights_are_as_large_as_told_and_freed_when_evicted(tmp_path):
    torch.set_num_threads(1)
    write_random_inpaint(tmp_path)
    entry = ModelEntry(id="tiny", source=tmp_path, kinds=tuple(Kind), native_size_px=64)
    config = AppConfig.model_validate({"engine": {"device": "cpu"}})
    loader = PoolLoader(lambda: Catalogue([entry]), MemoryModelStore(), "replica", config)
    cache = ModelCache(loader, config.pool)
    async with cache.use("tiny") as resident:
        await resident.paint(1, spec(model_id="tiny"), None)
        assert await loader.estimate_bytes("tiny") == pytest.approx(
            loader.measure_bytes(resident), rel=0.01
        )
        painter = resident._slot.current.painter
        weights = weakref.ref(next(painter._checkpoint.base.unet.parameters()))
    del resident, painter
    await cache.close()
    assert weights() is None
