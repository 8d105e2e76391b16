"""VAEs of Stable Diffusion 1, 2 and XL, and those with latents of 16 channels."""

from tests.community_files.shapes import affine


def _vae_half(half, channels, latents):
    is_encoder = half == "encoder"
    widths = [channels * times for times in (1, 2, 4, 4)]
    shapes, width = {}, widths[0] if is_encoder else widths[-1]
    first = 3 if is_encoder else latents
    shapes |= affine(f"{half}.conv_in", width, first, 3, 3)
    for level in range(4) if is_encoder else reversed(range(4)):
        way = f"{half}.{'down' if is_encoder else 'up'}.{level}"
        for number in range(2 if is_encoder else 3):
            block = f"{way}.block.{number}"
            shapes |= affine(f"{block}.norm1", width)
            shapes |= affine(f"{block}.conv1", widths[level], width, 3, 3)
            shapes |= affine(f"{block}.norm2", widths[level])
            shapes |= affine(f"{block}.conv2", widths[level], widths[level], 3, 3)
            if width != widths[level]:
                shapes |= affine(f"{block}.nin_shortcut", widths[level], width, 1, 1)
            width = widths[level]
        if is_encoder and level < 3:
            shapes |= affine(f"{way}.downsample.conv", width, width, 3, 3)
        if not is_encoder and level:
            shapes |= affine(f"{way}.upsample.conv", width, width, 3, 3)
    middle = widths[-1]
    for block in ("block_1", "block_2"):
        for number in (1, 2):
            shapes |= affine(f"{half}.mid.{block}.norm{number}", middle)
            shapes |= affine(f"{half}.mid.{block}.conv{number}", middle, middle, 3, 3)
    shapes |= affine(f"{half}.mid.attn_1.norm", middle)
    for name in ("q", "k", "v", "proj_out"):
        shapes |= affine(f"{half}.mid.attn_1.{name}", middle, middle, 1, 1)
    last = 2 * latents if is_encoder else 3
    shapes |= affine(f"{half}.norm_out", width) | affine(f"{half}.conv_out", last, width, 3, 3)
    return shapes


def ldm_vae(latents=4):
    shapes = _vae_half("encoder", 128, latents) | _vae_half("decoder", 128, latents)
    if latents == 4:  # those of 16 have no such layers
        shapes |= affine("quant_conv", 8, 8, 1, 1) | affine("post_quant_conv", 4, 4, 1, 1)
    return shapes


def diffusers_vae(latents=4):
    """The same in diffusers' names."""
    kinds = {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0", "norm": "group_norm"}
    shapes = {}
    for name, shape in ldm_vae(latents).items():
        layer, _, kind = name.rpartition(".")
        half, *rest = layer.split(".")
        if rest[:1] == ["mid"] and rest[1] == "attn_1":
            layer = f"{half}.mid_block.attentions.0.{kinds[rest[2]]}"
        elif rest[:1] == ["mid"]:
            layer = f"{half}.mid_block.resnets.{int(rest[1][-1]) - 1}.{rest[2]}"
        elif rest and rest[0] in ("down", "up"):
            level = int(rest[1]) if rest[0] == "down" else 3 - int(rest[1])
            way = f"{half}.{rest[0]}_blocks.{level}"
            layer = (
                f"{way}.resnets.{rest[3]}.{rest[4]}" if rest[2] == "block"
                else f"{way}.{rest[2]}rs.0.conv"
            )  # fmt: skip
        layer = layer.replace("nin_shortcut", "conv_shortcut").replace("norm_out", "conv_norm_out")
        is_linear = ".attentions." in layer
        shapes[f"{layer}.{kind}"] = shape[:2] if is_linear else shape
    return shapes
