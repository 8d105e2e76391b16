"""What can go wrong at start-up, and the switches of the denoiser."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from serve_app import errors
from serve_app.config import EngineConfig
from serve_app.models import ModelEntry
from serve_app.pipelines.loader import load_checkpoint
from serve_app.testing.checkpoints import RandomUNet, write_random_text2img
from serve_app.testing.painter import load_painter
from serve_app.types import Kind
from tests.weight_files import UNET, rewrite

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    write_random_text2img(folder, unet=RandomUNet(4, (8, 16), (False, True), sample_size=8))
    return folder


@pytest.fixture
def make_entry(folder: Path) -> Callable[..., ModelEntry]:
    def make(**changes: object) -> ModelEntry:
        values: dict[str, object] = {
            "id": "random",
            "source": folder,
            "kinds": list(Kind),
            "native_size_px": 64,
        }
        return ModelEntry.model_validate(values | changes)

    return make


CPU = EngineConfig(device="cpu", measure_rows=False)


def test_load_missing_folder_is_refused(make_entry: Callable[..., ModelEntry]) -> None:
    with pytest.raises(errors.WeightsRefused, match="does not exist"):
        load_painter(make_entry(source="/nowhere"), CPU)


def test_load_single_file_without_base_config_is_refused(
    make_entry: Callable[..., ModelEntry], tmp_path: Path
) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ValueError, match="base_config"):
        load_checkpoint(make_entry(source=tmp_path / "model.safetensors"), CPU)


def test_load_unserved_architecture_is_refused(
    make_entry: Callable[..., ModelEntry], folder: Path, tmp_path: Path
) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            target = tmp_path / file.relative_to(folder)
            target.parent.mkdir(exist_ok=True)
            target.symlink_to(file)
    index = json.loads((folder / "model_index.json").read_text())
    (tmp_path / "model_index.json").unlink()
    index["_class_name"] = "StableDiffusionUpscalePipeline"
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises((ValueError, TypeError)):
        load_checkpoint(make_entry(source=tmp_path), CPU)


def test_load_weights_that_paint_no_numbers_is_refused(
    make_entry: Callable[..., ModelEntry], folder: Path, tmp_path: Path
) -> None:
    checkpoint = load_checkpoint(make_entry(), CPU)
    weight = checkpoint.base.unet.conv_out.weight
    weight.copy_(torch.full_like(weight, torch.finfo(weight.dtype).max))
    checkpoint.base.save_pretrained(tmp_path)
    with pytest.raises(errors.NonFiniteLatents):
        load_painter(make_entry(source=tmp_path), CPU)


def test_load_measures_the_row_cap_of_the_native_size(
    make_entry: Callable[..., ModelEntry],
) -> None:
    painter = load_painter(make_entry(), EngineConfig(device="cpu", max_rows=8))
    snapshot = painter.snapshot()  # type: ignore[attr-defined]
    painter.close()
    assert set(snapshot.row_caps) == {"denoiser/256"}
    assert snapshot.row_caps["denoiser/256"] in (2, 4, 8)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("more", [{}, {"more": torch.zeros(1)}], ids=["ours", "diffusers'"])
def test_load_lays_the_kernels_out_as_the_setting_says(
    make_entry: Callable[..., ModelEntry],
    folder: Path,
    tmp_path: Path,
    channels_last: bool,
    more: dict[str, torch.Tensor],
) -> None:
    """Whoever reads the file; one with more than the layers is left to diffusers."""
    source = shutil.copytree(folder, tmp_path / "copy")
    rewrite(source, UNET, lambda tensors: tensors.update(more))
    config = CPU.model_copy(update={"channels_last": channels_last})
    unet = load_checkpoint(make_entry(source=source), config).base.unet
    kernels = [w for w in unet.parameters() if w.dim() == 4 and min(w.shape[1:]) > 1]
    assert kernels
    for weight in kernels:
        assert weight.is_contiguous(memory_format=torch.channels_last) is channels_last


def test_load_bfloat16_paints(make_entry: Callable[..., ModelEntry]) -> None:
    load_painter(make_entry(dtype="bfloat16"), CPU).close()
