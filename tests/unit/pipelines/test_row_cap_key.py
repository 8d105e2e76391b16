"""Which checkpoints share row caps."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from serve_app.config import EngineConfig
from serve_app.models import ModelEntry
from serve_app.pipelines.loader import load_checkpoint
from serve_app.pipelines.row_cap_key import row_cap_store
from serve_app.testing.checkpoints import RandomUNet, write_random_text2img
from serve_app.types import Kind

TINY = RandomUNet(4, (8, 16), (False, True), sample_size=4)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., ModelEntry]:
    def make(name: str, unet: RandomUNet = TINY, seed: int = 0, **fields: str) -> ModelEntry:
        write_random_text2img(tmp_path / name, seed=seed, unet=unet)
        return ModelEntry(id=name, source=tmp_path / name, kinds=(Kind.TEXT2IMG,), **fields)

    return make


@pytest.mark.slow
def test_cap_file_other_weights_share_it_other_conditions_do_not(
    write: Callable[..., ModelEntry], tmp_path: Path
) -> None:
    config = EngineConfig(device="cpu", cache_dir=tmp_path / "cache")
    larger = replace(TINY, channels=(8, 24))

    def caps(entry: ModelEntry, config: EngineConfig = config) -> dict[tuple[str, int], int]:
        file = row_cap_store(load_checkpoint(entry, config), config)
        assert file is not None
        return file.read()

    first = write("first")
    file = row_cap_store(load_checkpoint(first, config), config)
    assert file is not None
    file.add({("denoiser", 64): 4})
    assert caps(write("tuned", seed=1)) == {("denoiser", 64): 4}
    assert caps(write("other", larger)) == {}
    assert caps(write("half", dtype="bfloat16")) == {}
    assert caps(first, config.model_copy(update={"row_growth": 1.7})) == {}
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    assert caps(first) == {}
    torch.set_num_threads(threads)


def test_cap_file_without_a_cache_folder_is_none(write: Callable[..., ModelEntry]) -> None:
    config = EngineConfig(device="cpu")
    assert row_cap_store(load_checkpoint(write("first"), config), config) is None
