"""ControlNets of Stable Diffusion 1, 2 and XL."""

import itertools

from tests.community_files.shapes import affine
from tests.community_files.unets import in_diffusers_names, ldm_unet


def ldm_controlnet(text=768):
    unet = ldm_unet(text)
    shapes = {name: shape for name, shape in unet.items() if not name.startswith("out")}
    sides = (3, 16, 16, 32, 32, 96, 96, 256, 320)
    for number, (inner, outer) in enumerate(itertools.pairwise(sides)):
        shapes |= affine(f"input_hint_block.{2 * number}", outer, inner, 3, 3)
    for number in range(12):
        width = unet.get(f"input_blocks.{number}.0.out_layers.0.weight", (320,))[0]
        shapes |= affine(f"zero_convs.{number}.0", width, width, 1, 1)
    return shapes | affine("middle_block_out.0", 1280, 1280, 1, 1)


def diffusers_controlnet(unet, levels=4):
    shapes = {
        name: shape
        for name, shape in in_diffusers_names(unet, levels).items()
        if not name.startswith(("up_blocks", "conv_norm_out", "conv_out"))
    }
    shapes |= affine("controlnet_cond_embedding.conv_in", 16, 3, 3, 3)
    shapes |= affine("controlnet_cond_embedding.conv_out", 320, 256, 3, 3)
    for number in range(3 * levels):
        shapes |= affine(f"controlnet_down_blocks.{number}", 320, 320, 1, 1)
    return shapes | affine("controlnet_mid_block", 1280, 1280, 1, 1)
