"""UNets of Stable Diffusion 1, 2 and XL."""

from tests.community_files.shapes import affine


def _resnet(name, inner, outer, time):
    shapes = affine(f"{name}.in_layers.0", inner)
    shapes |= affine(f"{name}.in_layers.2", outer, inner, 3, 3)
    shapes |= affine(f"{name}.emb_layers.1", outer, time)
    shapes |= affine(f"{name}.out_layers.0", outer)
    shapes |= affine(f"{name}.out_layers.3", outer, outer, 3, 3)
    if inner != outer:
        shapes |= affine(f"{name}.skip_connection", outer, inner, 1, 1)
    return shapes


def _transformer(name, width, text, depth, is_linear):
    kernel = () if is_linear else (1, 1)
    shapes = affine(f"{name}.norm", width) | affine(f"{name}.proj_in", width, width, *kernel)
    for number in range(depth):
        block = f"{name}.transformer_blocks.{number}"
        for attention, seen in (("attn1", width), ("attn2", text)):
            shapes[f"{block}.{attention}.to_q.weight"] = (width, width)
            shapes[f"{block}.{attention}.to_k.weight"] = (width, seen)
            shapes[f"{block}.{attention}.to_v.weight"] = (width, seen)
            shapes |= affine(f"{block}.{attention}.to_out.0", width, width)
        shapes |= affine(f"{block}.ff.net.0.proj", 8 * width, width)
        shapes |= affine(f"{block}.ff.net.2", width, 4 * width)
        for norm in ("norm1", "norm2", "norm3"):
            shapes |= affine(f"{block}.{norm}", width)
    return shapes | affine(f"{name}.proj_out", width, width, *kernel)


def ldm_unet(text=768, channels=4, base=320, levels=(1, 2, 4, 4), depths=(1, 1, 1, 0), label=None):
    """A UNet in the names of the first implementation. depths: transformers of each level."""
    is_linear, time, middle = text != 768, 4 * base, depths[-1] or depths[-2]
    shapes = affine("time_embed.0", time, base) | affine("time_embed.2", time, time)
    if label:
        shapes |= affine("label_emb.0.0", time, label) | affine("label_emb.0.2", time, time)
    shapes |= affine("input_blocks.0.0", base, channels, 3, 3)
    number, width, skips = 0, base, [base]

    def attend(name, depth):
        return _transformer(name, width, text, depth, is_linear) if depth else {}

    for level, (times, depth) in enumerate(zip(levels, depths, strict=True)):
        for _ in range(2):
            number += 1
            shapes |= _resnet(f"input_blocks.{number}.0", width, times * base, time)
            width = times * base
            shapes |= attend(f"input_blocks.{number}.1", depth)
            skips.append(width)
        if level < len(levels) - 1:
            number += 1
            shapes |= affine(f"input_blocks.{number}.0.op", width, width, 3, 3)
            skips.append(width)
    shapes |= _resnet("middle_block.0", width, width, time) | attend("middle_block.1", middle)
    shapes |= _resnet("middle_block.2", width, width, time)
    number = 0
    for level in reversed(range(len(levels))):
        for last in (False, False, True):
            block = f"output_blocks.{number}"
            shapes |= _resnet(f"{block}.0", width + skips.pop(), levels[level] * base, time)
            width = levels[level] * base
            shapes |= attend(f"{block}.1", depths[level])
            if last and level:
                index = 2 if depths[level] else 1
                shapes |= affine(f"{block}.{index}.conv", width, width, 3, 3)
            number += 1
    return shapes | affine("out.0", base) | affine("out.2", 4, base, 3, 3)


XL = {"text": 2048, "levels": (1, 2, 4), "depths": (0, 2, 10), "label": 2816}
REFINER = {
    "text": 1280, "base": 384, "levels": (1, 2, 4, 4), "depths": (0, 4, 4, 0), "label": 2560,
}  # fmt: skip


def in_diffusers_names(unet, levels=4):
    """Rename a UNet in LDM's names; blocks come in threes on the way down and up."""
    fixed = {
        "time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2",
        "label_emb.0.0": "add_embedding.linear_1", "label_emb.0.2": "add_embedding.linear_2",
        "input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out",
        "middle_block.0": "mid_block.resnets.0", "middle_block.1": "mid_block.attentions.0",
        "middle_block.2": "mid_block.resnets.1",
    }  # fmt: skip
    inner = {
        "in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj",
        "out_layers.0": "norm2", "out_layers.3": "conv2", "skip_connection": "conv_shortcut",
    }  # fmt: skip

    def renamed(name):
        layer, _, kind = name.rpartition(".")
        if layer in fixed:
            return f"{fixed[layer]}.{kind}"
        block, index, part, *rest = layer.split(".")
        if block == "middle_block":
            place, rest = fixed[f"{block}.{index}"], [part, *rest]
        else:
            number = int(index) - (block == "input_blocks")
            way = "down_blocks" if block == "input_blocks" else "up_blocks"
            if rest[0] == "op":
                return f"{way}.{number // 3}.downsamplers.0.conv.{kind}"
            if rest == ["conv"]:
                return f"{way}.{number // 3}.upsamplers.0.conv.{kind}"
            where = f"{'resnets' if part == '0' else 'attentions'}.{number % 3}"
            place = f"{way}.{number // 3}.{where}"
        rest = ".".join(rest)
        return f"{place}.{inner.get(rest, rest)}.{kind}"

    return {renamed(name): shape for name, shape in unet.items()}
