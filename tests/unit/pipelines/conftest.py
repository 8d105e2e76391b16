"""A UNet with attention to texts, as small as diffusers allows, and what LoRAs multiply in it."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from serve_app.pipelines.addons import lora_products


@pytest.fixture
def unet():
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=4,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=12,
        attention_head_dim=4,
        norm_num_groups=4,
    ).requires_grad_(False)


@pytest.fixture
def products(monkeypatch):
    """The shapes of what was multiplied by the matrices of inputs."""
    made = []
    product = lora_products._product
    monkeypatch.setattr(
        lora_products,
        "_product",
        lambda pair, down, x: made.append(tuple(down.shape)) or product(pair, down, x),
    )
    return made
