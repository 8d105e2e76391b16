"""How tensors come from a folder's files: copied in their order, equal to what diffusers loads."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from serve_app.pipelines import tensor_reader
from serve_app.pipelines.addons.misfit import Unfit
from serve_app.pipelines.tensor_reader import Place, TensorReader, read_modules
from tests.weight_files import UNET, rewrite

COPIES = TensorReader(copies=True, channels_last=True)
STOCK = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}
VAE = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture
def copy(folder: Callable[[str], Path], tmp_path: Path) -> Path:
    return shutil.copytree(folder("deep"), tmp_path / "copy")


def read(folder: Path, dtype: torch.dtype = torch.float32, how: TensorReader = COPIES):
    index = json.loads((folder / "model_index.json").read_text())
    wanted = {name: index[name] for name in (*STOCK, "text_encoder")}
    return read_modules(folder, wanted, None, dtype, how)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_modules_of_a_folder_are_those_of_diffusers_in_memory_of_their_own(copy, dtype):
    found = read(copy, dtype)
    assert found.keys() == STOCK.keys()
    assert str(copy) not in Path("/proc/self/maps").read_text()
    for name, module in found.items():
        stock = STOCK[name].from_pretrained(copy / name, torch_dtype=dtype).state_dict()
        own = module.state_dict()
        assert own.keys() == stock.keys()
        assert all(torch.equal(tensor, stock[key]) for key, tensor in own.items())
        assert {tensor.dtype for tensor in own.values()} == {dtype}
    kernels = [w for w in found["unet"].parameters() if w.dim() == 4 and min(w.shape[2:]) > 1]
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in kernels)


@pytest.mark.parametrize(
    "name", ["diffusion_pytorch_model_ema", "old", "diffusion_pytorch_model-00001-of-00002"]
)
def test_of_several_files_diffusers_says_which_count(copy, name):
    other = {key: torch.zeros_like(tensor) for key, tensor in load_file(copy / UNET).items()}
    save_file(other, copy / "unet" / f"{name}.safetensors")
    assert read(copy).keys() == {"vae"}
    (copy / UNET).unlink()
    assert read(copy).keys() == {"vae"}


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.update(other=tensors.pop("decoder.conv_in.weight")),
        lambda tensors: tensors.update(more=torch.zeros(1)),
        lambda tensors: tensors.popitem(),
        lambda tensors: tensors.update({name: t[:1].clone() for name, t in tensors.items()}),
    ],
    ids=["other names", "more", "less", "other shapes"],
)
def test_files_that_are_not_just_the_module_are_left_to_diffusers(copy, change):
    rewrite(copy, VAE, change)
    assert read(copy).keys() == {"unet"}


def test_number_that_is_none_is_told_with_its_tensor(copy):
    def spoil(tensors):
        tensors["conv_out.bias"][0] = float("inf")

    rewrite(copy, UNET, spoil)
    with pytest.raises(Unfit, match=r"NaN or infinity in unet: conv_out\.bias"):
        read(copy)


def test_number_too_large_for_the_dtype_is_told(copy):
    rewrite(copy, UNET, lambda tensors: tensors["conv_out.bias"].fill_(1e5))
    with pytest.raises(Unfit, match=r"NaN or infinity in unet: conv_out\.bias"):
        read(copy, torch.float16)
    assert read(copy, torch.bfloat16).keys() == STOCK.keys()


def test_each_tensor_is_looked_at_and_copied_in_the_order_of_the_file(copy, monkeypatch):
    seen = []
    monkeypatch.setattr(tensor_reader, "check_tensor", lambda name, _: seen.append(name))
    read(copy)
    with safe_open(copy / UNET, "pt") as unet, safe_open(copy / VAE, "pt") as vae:
        expected = [f"unet: {name}" for name in unet.offset_keys()]
        assert seen == expected + [f"vae: {name}" for name in vae.offset_keys()]


def test_tensors_that_are_not_copied_are_those_of_the_file(copy):
    told = load_file(copy / UNET)
    mapped = TensorReader(copies=False, channels_last=True)
    with safe_open(copy / UNET, "pt") as file:
        found = mapped.tensors("unet", {name: Place(file, name) for name in told}, torch.float16)
    assert found.keys() == told.keys()
    assert all(torch.equal(tensor, told[name]) for name, tensor in found.items())


def test_what_is_moved_to_another_device_is_left_to_the_libraries(copy):
    assert read(copy, how=TensorReader(copies=False, channels_last=True)) == {}
