"""Which tensors tell a layout from others that hold nearly the same."""

import pytest

from serve_app.models.inspect import Family, denoisers, inspect
from serve_app.models.inspect.layout import first_meaning
from serve_app.models.inspect.layouts import LAYOUTS
from tests import community_files
from tests.unit.models.test_inspect import names_of

# What the names of a published file's tensors hold without which it is of another layout, or none.
TELLING = {
    "sd1": "first_stage_model|cond_stage_model",
    "sd1-unet": "out.2.weight",
    "sd1-unet-diffusers": "up_blocks.",
    "sd1-flat": "vae.|text_encoder.",
    "flux-diffusers": "x_embedder.weight",
    "sd3-diffusers": "context_embedder.weight",
    "sd3-medium": "first_stage_model",
    "dora-sd1-kohya": ".dora_scale",
    "locon-sd1": "resnets|samplers",
    "embedding-xl": "clip_g",
    "embedding-sd3": "t5xxl",
    "embedding-flux": "t5xxl",
    "vae-ldm": "decoder.up.0.block.0.conv1.weight",
    "vae-diffusers": "decoder.up_blocks.0.resnets.0.conv1.weight",
    "text-clip-l": "encoder.layers.0.self_attn.q_proj.weight",
    "text-clip-h": "transformer.resblocks.0.attn.in_proj_weight",
    "controlnet-sd1-ldm": "zero_convs.0.0.weight",
    "controlnet-sd1-diffusers": "controlnet_down_blocks.0.weight",
    "controlnet-flux": "controlnet_blocks.0.weight",
    "controlnet-sd3": "controlnet_blocks.0.weight",
    "ip-adapter-sd1": ".to_k_ip.weight",
    "ip-adapter-flux": ".processor.ip_adapter_",
    "upscaler-esrgan": "model.1.sub.0.RDB1.conv1.0.weight",
    "upscaler-real-esrgan": "RDB1.conv1.weight|rdb1.conv1.weight",
    "upscaler-compact": "body.2.weight",
    "upscaler-swinir": "conv_last.|upsample.0|conv_before_upsample.0",
}


def layout_of(shapes):
    names = names_of(shapes)
    return next((row for row in LAYOUTS if row.matches(names)), None)


@pytest.mark.parametrize("name", TELLING)
def test_layout_is_another_without_what_tells_it(name):
    whole = community_files.FILES[name]()
    lacking = {
        tensor: shape
        for tensor, shape in whole.items()
        if not any(part in tensor for part in TELLING[name].split("|"))
    }
    assert len(lacking) < len(whole)
    assert layout_of(whole) is not None
    assert layout_of(lacking) is not layout_of(whole)


def test_parts_are_told_where_there_are_several(tmp_path):
    whole = inspect(community_files.write_named(tmp_path, "sd1")).describe()
    assert whole.startswith("A checkpoint of Stable Diffusion 1, 4 channels, with unet + vae + ")
    alone = inspect(community_files.write_named(tmp_path, "vae-ldm")).describe()
    assert " with " not in alone


@pytest.mark.parametrize(
    ("shapes", "family"),
    [
        ({"input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 768)}, Family.SD1),
        ({"input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 1024)}, Family.SD2),
        ({"input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (640, 2048)}, Family.SDXL),
        (
            {"input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (768, 1280)},
            Family.SDXL_REFINER,
        ),
        ({"label_emb.0.0.weight": (1280, 2816)}, Family.SDXL),
        ({"label_emb.0.0.weight": (1536, 2560)}, Family.SDXL_REFINER),
        ({"add_embedding.linear_1.weight": (1536, 2560)}, Family.SDXL_REFINER),
    ],
)
def test_unet_is_told_by_what_it_attends_to_or_else_by_its_labels(shapes, family):
    shapes = {"input_blocks.0.0.weight": (320, 4, 3, 3)} | shapes
    for start in ("model.diffusion_model.", "diffusion_model.", ""):
        names = names_of({start + name: shape for name, shape in shapes.items()})
        assert first_meaning(denoisers._UNET_FAMILIES, names) == (family,)
