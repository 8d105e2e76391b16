"""The names and shapes of `tests/community_files` are those of the stock libraries."""

import diffusers
import pytest
import torch
import transformers
from accelerate import init_empty_weights
from diffusers.loaders import single_file_utils as stock

from tests import community_files as files


def empty(cls, **config):
    with init_empty_weights():
        return cls.from_config(config) if hasattr(cls, "from_config") else cls(config["config"])


def shapes_of(model):
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def on_meta(shapes):
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def without_buffers(shapes):
    return {name: shape for name, shape in shapes.items() if "position_ids" not in name}


DOWN, CROSS = "DownBlock2D", "CrossAttnDownBlock2D"
UNETS = {
    "sd1": ({}, {"cross_attention_dim": 768}),
    "sd1-inpainting": ({"channels": 9}, {"cross_attention_dim": 768, "in_channels": 9}),
    "sd2": (
        {"text": 1024},
        {
            "cross_attention_dim": 1024,
            "attention_head_dim": [5, 10, 20, 20],
            "use_linear_projection": True,
        },
    ),
    "sdxl": (
        files.XL,
        {
            "cross_attention_dim": 2048,
            "block_out_channels": [320, 640, 1280],
            "down_block_types": [DOWN, CROSS, CROSS],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "attention_head_dim": [5, 10, 20],
            "transformer_layers_per_block": [1, 2, 10],
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
            "use_linear_projection": True,
        },
    ),
    "sdxl-refiner": (
        files.REFINER,
        {
            "cross_attention_dim": 1280,
            "block_out_channels": [384, 768, 1536, 1536],
            "down_block_types": [DOWN, CROSS, CROSS, DOWN],
            "up_block_types": [
                "UpBlock2D",
                "CrossAttnUpBlock2D",
                "CrossAttnUpBlock2D",
                "UpBlock2D",
            ],
            "attention_head_dim": [6, 12, 24, 24],
            "transformer_layers_per_block": 4,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2560,
            "use_linear_projection": True,
        },
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("ours", "config"), UNETS.values(), ids=UNETS)
def test_unet_has_the_layers_of_the_stock_one(ours, config):
    model = empty(diffusers.UNet2DConditionModel, **config)
    ldm = files.ldm_unet(**ours)
    assert files.in_diffusers_names(ldm) == shapes_of(model)
    prefixed = on_meta(files.under("model.diffusion_model.", ldm))
    converted = stock.convert_ldm_unet_checkpoint(prefixed, config=model.config)
    assert {name: tuple(tensor.shape) for name, tensor in converted.items()} == shapes_of(model)


VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
}


@pytest.mark.parametrize("latents", [4, 16])
def test_vae_has_the_layers_of_the_stock_one(latents):
    has_quant = latents == 4
    model = empty(
        diffusers.AutoencoderKL,
        latent_channels=latents,
        use_quant_conv=has_quant,
        use_post_quant_conv=has_quant,
        **VAE,
    )
    assert files.diffusers_vae(latents) == shapes_of(model)
    ldm = files.ldm_vae(latents)
    converted = stock.convert_ldm_vae_checkpoint(on_meta(ldm), config=model.config)
    assert converted.keys() == shapes_of(model).keys()


def test_text_encoders_have_the_layers_of_the_stock_ones():
    config = transformers.CLIPTextConfig(hidden_size=768, intermediate_size=3072)
    with init_empty_weights():
        model = transformers.CLIPTextModel(config)
    stock_shapes = without_buffers(shapes_of(model))
    prefix = "text_model." if any(name.startswith("text_model.") for name in stock_shapes) else ""
    assert files.clip(prefix=prefix) == stock_shapes
    config = transformers.T5Config(
        d_model=4096, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu"
    )
    with init_empty_weights():
        encoder = transformers.T5EncoderModel(config)
    tied = {name: shape for name, shape in shapes_of(encoder).items() if "embed_tokens" not in name}
    assert files.t5() == tied


@pytest.mark.slow
def test_transformers_have_the_layers_of_the_stock_ones():
    model = empty(diffusers.FluxTransformer2DModel, guidance_embeds=True)
    assert files.diffusers_flux() == shapes_of(model)
    converted = stock.convert_flux_transformer_checkpoint_to_diffusers(on_meta(files.flux()))
    assert {name: tuple(tensor.shape) for name, tensor in converted.items()} == shapes_of(model)
    sd3 = empty(
        diffusers.SD3Transformer2DModel,
        num_layers=24,
        num_attention_heads=24,
        caption_projection_dim=1536,
        pos_embed_max_size=192,
        sample_size=128,
    )
    assert files.diffusers_sd3() == shapes_of(sd3)
    converted = stock.convert_sd3_transformer_checkpoint_to_diffusers(on_meta(files.sd3()))
    assert {name: tuple(tensor.shape) for name, tensor in converted.items()} == shapes_of(sd3)
