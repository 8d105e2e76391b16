"""What can be wrong with the files of an IP adapter."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection


def break_layer(folder: Path) -> None:
    change(folder, "ip_adapter.1.to_k_ip.weight", torch.zeros(3, 3))


def break_number(folder: Path) -> None:
    change(folder, "image_proj.norm.weight", torch.full((32,), torch.nan))


def add_layer(folder: Path) -> None:
    change(folder, "ip_adapter.99.to_k_ip.weight", torch.zeros(3, 3))


def take_layer(folder: Path) -> None:
    file = folder / "ip_adapter.safetensors"
    state = load_file(file)
    del state["ip_adapter.1.to_v_ip.weight"]
    save_file(state, file)


def add_face(folder: Path) -> None:
    change(folder, "lora.0.down.weight", torch.zeros(3, 3))


def change_encoder(folder: Path) -> None:
    CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=32,
            patch_size=16,
            projection_dim=40,
        )
    ).save_pretrained(folder / "image_encoder")


def change_tokens(folder: Path) -> None:
    for name, shape in (("norm.weight", (48,)), ("norm.bias", (48,))):
        change(folder, f"image_proj.{name}", torch.ones(shape))
    change(folder, "image_proj.proj.weight", torch.ones(4 * 48, 24))
    change(folder, "image_proj.proj.bias", torch.ones(4 * 48))


def break_file(folder: Path) -> None:
    (folder / "image_encoder" / "config.json").write_text("{")


def break_encoder(folder: Path) -> None:
    file = folder / "image_encoder" / "model.safetensors"
    state = load_file(file)
    del state["visual_projection.weight"]
    save_file(state, file, {"format": "pt"})


def add_adapter(folder: Path) -> None:
    save_file({"second": torch.zeros(1)}, folder / "other.safetensors")


def drop_encoder(folder: Path) -> None:
    (folder / "image_encoder" / "config.json").unlink()


def change(folder: Path, name: str, tensor: torch.Tensor) -> None:
    file = folder / "ip_adapter.safetensors"
    save_file(load_file(file) | {name: tensor}, file)
