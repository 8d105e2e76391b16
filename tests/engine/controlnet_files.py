"""Files of ControlNets: in the names of the first ones, and with what can be wrong in them."""

import json
import re
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from serve_app.testing.checkpoints import RandomUNet, random_unet
from serve_app.testing.controlnets import write_random_controlnet
from serve_app.testing.ldm_names import original_unet
from tests.engine.conftest import SHAPES

WEIGHTS = "diffusion_pytorch_model.safetensors"
USUAL_PICTURE_LAYERS = {"conditioning_embedding_out_channels": (16, 32, 96, 256)}


def ldm_name(name: str) -> str:
    """Rename a tensor of diffusers as the first ControlNets have it."""
    part, _, rest = name.partition(".")
    if part == "controlnet_down_blocks":
        number, _, rest = rest.partition(".")
        return f"zero_convs.{number}.0.{rest}"
    if part == "controlnet_mid_block":
        return f"middle_block_out.0.{rest}"
    if part == "controlnet_cond_embedding":
        rest = re.sub(r"blocks\.(\d)", lambda found: str(2 * int(found[1]) + 2), rest)
        rest = rest.replace("conv_in", "0").replace("conv_out", "14")
        return f"input_hint_block.{rest}"
    return original_unet(name, 1, lambda _block: True)


def break_number(folder: Path) -> None:
    change(folder, {"conv_in.bias": torch.full((8,), torch.nan)})


def take_tensor(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    del tensors["controlnet_mid_block.bias"]
    save_file(tensors, folder / WEIGHTS)


def add_tensor(folder: Path) -> None:
    change(folder, {"task_embedding": torch.zeros(6, 320)})


def say_union(folder: Path) -> None:
    say(folder, _class_name="ControlNetUnionModel")


def break_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def widen(folder: Path) -> None:
    write_random_controlnet(folder, random_unet(RandomUNet(4, (16, 32), (False, True))))


def lengthen(folder: Path) -> None:
    unet = random_unet(RandomUNet(4, (8, 16), (False, True), layers=2))
    write_random_controlnet(folder, unet)


def coarsen(folder: Path) -> None:
    write_random_controlnet(folder, random_unet(SHAPES["plain"]), cell_px=4)


def claim(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    header = {"modelspec.architecture": "stable-diffusion-xl-v1-base/controlnet"}
    save_file(tensors, folder / WEIGHTS, header)


def change(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file(load_file(folder / WEIGHTS) | tensors, folder / WEIGHTS)


def say(folder: Path, **settings: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | settings))
