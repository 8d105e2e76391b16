"""LoRA files as trainers write them, from the same random matrices."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from safetensors.torch import save_file

LAYERS = {  # of the random checkpoints: each sort of layer that LoRAs are made for
    "unet": (
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0",
        "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k",
        "down_blocks.0.attentions.0.transformer_blocks.0.ff.net.2",
        "down_blocks.0.attentions.0.proj_in",
        "mid_block.resnets.0.conv1",
        "mid_block.resnets.0.time_emb_proj",
    ),
    "text_encoder": (
        "encoder.layers.0.self_attn.q_proj",
        "encoder.layers.1.self_attn.out_proj",
        "encoder.layers.0.mlp.fc1",
    ),
}
KERNEL = "mid_block.resnets.0.conv1"
MATRICES = LAYERS | {"unet": tuple(name for name in LAYERS["unet"] if name != KERNEL)}
_KOHYA = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}


@dataclass(frozen=True)
class Matrices:
    """Of one layer. down: (r, in, ...). up: (out, r, ...). magnitude: (out,)."""

    down: torch.Tensor
    up: torch.Tensor
    magnitude: torch.Tensor

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    def product(self) -> torch.Tensor:
        """up @ down, in the shape of the weights."""
        flat = self.up.flatten(1) @ self.down.flatten(1)
        return flat.view(len(self.up), *self.down.shape[1:])

    def decomposed(self, weight: torch.Tensor, factor: float = 1.0) -> torch.Tensor:
        """Weights that a DoRA gives: arXiv 2402.09353, equation 5, rows of outputs as in peft."""
        summed = weight + factor * self.product()
        lengths = summed.flatten(1).norm(dim=1)
        return summed * (self.magnitude / lengths).view(-1, *[1] * (weight.ndim - 1))


Made = dict[tuple[str, str], Matrices]  # by component and layer


def make(
    pipeline: DiffusionPipeline,
    layers: Mapping[str, tuple[str, ...]] = LAYERS,
    ranks: tuple[int, ...] = (4,),
    seed: int = 0,
) -> Made:
    """Draw matrices; ranks take turns."""
    random = torch.Generator().manual_seed(seed)
    made: Made = {}
    for component, names in layers.items():
        for name in names:
            weight = getattr(pipeline, component).get_submodule(name).weight
            rank = ranks[len(made) % len(ranks)]
            made[component, name] = Matrices(
                torch.randn(rank, *weight.shape[1:], generator=random) * 0.3,
                torch.randn(len(weight), rank, *[1] * (weight.ndim - 2), generator=random) * 0.3,
                weight.flatten(1).norm(dim=1) * (0.7 + torch.rand(len(weight), generator=random)),
            )
    return made


def kohya(made: Made, prefixes: Mapping[str, str] = _KOHYA) -> dict[str, torch.Tensor]:
    """Give tensors kohya's names, without any alpha."""
    tensors = {}
    for (component, layer), own in made.items():
        name = prefixes[component] + layer.replace(".", "_")
        tensors[f"{name}.lora_down.weight"] = own.down
        tensors[f"{name}.lora_up.weight"] = own.up
    return tensors


def kohya_name(layer: tuple[str, str]) -> str:
    return _KOHYA[layer[0]] + layer[1].replace(".", "_")


def peft(made: Made, *, is_dora: bool = False) -> dict[str, torch.Tensor]:
    """Give tensors the names that peft and newer trainers of diffusers write."""
    tensors = {}
    for (component, layer), own in made.items():
        name = f"{component}.{layer}"
        tensors[f"{name}.lora_A.weight"] = own.down
        tensors[f"{name}.lora_B.weight"] = own.up
        if is_dora:
            is_conv = own.down.ndim == 4
            magnitude = own.magnitude.view(1, -1, 1, 1) if is_conv else own.magnitude
            tensors[f"{name}.lora_magnitude_vector"] = magnitude
    return tensors


def save(tensors: Mapping[str, torch.Tensor], file: Path, **header: str) -> Path:
    save_file({name: one.contiguous() for name, one in tensors.items()}, file, header or None)
    return file
