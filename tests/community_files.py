"""Weight files as people download them: the true names and shapes of each layout, and no numbers.

A file is its header and a hole, so a checkpoint of 7 GB takes a few hundred kilobytes. The shapes
come from the arithmetic of each architecture; `tests/engine/test_community_files.py` holds them
against stock diffusers and transformers.
"""

import itertools
import json
import math
import struct

BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "I64": 8, "U8": 1}


def write(path, shapes, dtype="F16", metadata=None, values=None):
    """Write a safetensors file whose data is a hole.

    shapes: by name; a pair (dtype, shape) where a tensor has a type of its own.
    values: of tensors of one float32 number.
    """
    values, header, end = values or {}, {}, 0
    if metadata is not None:
        header["__metadata__"] = metadata
    for name, said in (shapes | dict.fromkeys(values, ("F32", ()))).items():
        own, shape = said if said and isinstance(said[0], str) else (dtype, said)
        begin, end = end, end + math.prod(shape) * BYTES[own]
        header[name] = {"dtype": own, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
        for name, value in values.items():
            file.seek(8 + len(text) + header[name]["data_offsets"][0])
            file.write(struct.pack("<f", value))
    return path


def under(prefix, shapes):
    return {prefix + name: shape for name, shape in shapes.items()}


def _affine(name, *shape):
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


# -- Stable Diffusion 1, 2 and XL ---------------------------------------------------------------


def _resnet(name, inner, outer, time):
    shapes = _affine(f"{name}.in_layers.0", inner)
    shapes |= _affine(f"{name}.in_layers.2", outer, inner, 3, 3)
    shapes |= _affine(f"{name}.emb_layers.1", outer, time)
    shapes |= _affine(f"{name}.out_layers.0", outer)
    shapes |= _affine(f"{name}.out_layers.3", outer, outer, 3, 3)
    if inner != outer:
        shapes |= _affine(f"{name}.skip_connection", outer, inner, 1, 1)
    return shapes


def _transformer(name, width, text, depth, is_linear):
    kernel = () if is_linear else (1, 1)
    shapes = _affine(f"{name}.norm", width) | _affine(f"{name}.proj_in", width, width, *kernel)
    for number in range(depth):
        block = f"{name}.transformer_blocks.{number}"
        for attention, seen in (("attn1", width), ("attn2", text)):
            shapes[f"{block}.{attention}.to_q.weight"] = (width, width)
            shapes[f"{block}.{attention}.to_k.weight"] = (width, seen)
            shapes[f"{block}.{attention}.to_v.weight"] = (width, seen)
            shapes |= _affine(f"{block}.{attention}.to_out.0", width, width)
        shapes |= _affine(f"{block}.ff.net.0.proj", 8 * width, width)
        shapes |= _affine(f"{block}.ff.net.2", width, 4 * width)
        for norm in ("norm1", "norm2", "norm3"):
            shapes |= _affine(f"{block}.{norm}", width)
    return shapes | _affine(f"{name}.proj_out", width, width, *kernel)


def ldm_unet(text=768, channels=4, base=320, levels=(1, 2, 4, 4), depths=(1, 1, 1, 0), label=None):
    """A UNet in the names of the first implementation. depths: transformers of each level."""
    is_linear, time, middle = text != 768, 4 * base, depths[-1] or depths[-2]
    shapes = _affine("time_embed.0", time, base) | _affine("time_embed.2", time, time)
    if label:
        shapes |= _affine("label_emb.0.0", time, label) | _affine("label_emb.0.2", time, time)
    shapes |= _affine("input_blocks.0.0", base, channels, 3, 3)
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
            shapes |= _affine(f"input_blocks.{number}.0.op", width, width, 3, 3)
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
                shapes |= _affine(f"{block}.{index}.conv", width, width, 3, 3)
            number += 1
    return shapes | _affine("out.0", base) | _affine("out.2", 4, base, 3, 3)


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


def _vae_half(half, channels, latents):
    is_encoder = half == "encoder"
    widths = [channels * times for times in (1, 2, 4, 4)]
    shapes, width = {}, widths[0] if is_encoder else widths[-1]
    first = 3 if is_encoder else latents
    shapes |= _affine(f"{half}.conv_in", width, first, 3, 3)
    for level in range(4) if is_encoder else reversed(range(4)):
        way = f"{half}.{'down' if is_encoder else 'up'}.{level}"
        for number in range(2 if is_encoder else 3):
            block = f"{way}.block.{number}"
            shapes |= _affine(f"{block}.norm1", width)
            shapes |= _affine(f"{block}.conv1", widths[level], width, 3, 3)
            shapes |= _affine(f"{block}.norm2", widths[level])
            shapes |= _affine(f"{block}.conv2", widths[level], widths[level], 3, 3)
            if width != widths[level]:
                shapes |= _affine(f"{block}.nin_shortcut", widths[level], width, 1, 1)
            width = widths[level]
        if is_encoder and level < 3:
            shapes |= _affine(f"{way}.downsample.conv", width, width, 3, 3)
        if not is_encoder and level:
            shapes |= _affine(f"{way}.upsample.conv", width, width, 3, 3)
    middle = widths[-1]
    for block in ("block_1", "block_2"):
        for number in (1, 2):
            shapes |= _affine(f"{half}.mid.{block}.norm{number}", middle)
            shapes |= _affine(f"{half}.mid.{block}.conv{number}", middle, middle, 3, 3)
    shapes |= _affine(f"{half}.mid.attn_1.norm", middle)
    for name in ("q", "k", "v", "proj_out"):
        shapes |= _affine(f"{half}.mid.attn_1.{name}", middle, middle, 1, 1)
    last = 2 * latents if is_encoder else 3
    shapes |= _affine(f"{half}.norm_out", width) | _affine(f"{half}.conv_out", last, width, 3, 3)
    return shapes


def ldm_vae(latents=4):
    shapes = _vae_half("encoder", 128, latents) | _vae_half("decoder", 128, latents)
    if latents == 4:  # those of 16 have no such layers
        shapes |= _affine("quant_conv", 8, 8, 1, 1) | _affine("post_quant_conv", 4, 4, 1, 1)
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


# -- Text encoders ------------------------------------------------------------------------------


def clip(width=768, layers=12, prefix="text_model."):
    shapes = {
        "embeddings.token_embedding.weight": (49408, width),
        "embeddings.position_embedding.weight": (77, width),
    }
    for number in range(layers):
        layer = f"encoder.layers.{number}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= _affine(f"{layer}.self_attn.{name}", width, width)
        shapes |= _affine(f"{layer}.mlp.fc1", 4 * width, width)
        shapes |= _affine(f"{layer}.mlp.fc2", width, 4 * width)
        for name in ("layer_norm1", "layer_norm2"):
            shapes |= _affine(f"{layer}.{name}", width)
    return under(prefix, shapes | _affine("final_layer_norm", width))


def open_clip(width=1024, layers=24):
    shapes = {
        "positional_embedding": (77, width),
        "token_embedding.weight": (49408, width),
        "text_projection": (width, width),
        "logit_scale": (),
    }
    for number in range(layers):
        block = f"transformer.resblocks.{number}"
        shapes |= {f"{block}.attn.in_proj_weight": (3 * width, width)}
        shapes |= {f"{block}.attn.in_proj_bias": (3 * width,)}
        shapes |= _affine(f"{block}.attn.out_proj", width, width)
        shapes |= _affine(f"{block}.ln_1", width) | _affine(f"{block}.ln_2", width)
        shapes |= _affine(f"{block}.mlp.c_fc", 4 * width, width)
        shapes |= _affine(f"{block}.mlp.c_proj", width, 4 * width)
    return shapes | _affine("ln_final", width)


def t5(layers=24):
    width, inner = 4096, 10240
    shapes = {"shared.weight": (32128, width), "encoder.final_layer_norm.weight": (width,)}
    for number in range(layers):
        block = f"encoder.block.{number}.layer"
        shapes |= {f"{block}.0.SelfAttention.{name}.weight": (width, width) for name in "qkvo"}
        shapes |= {f"{block}.1.DenseReluDense.wi_{n}.weight": (inner, width) for n in (0, 1)}
        shapes[f"{block}.1.DenseReluDense.wo.weight"] = (width, inner)
        shapes |= {f"{block}.{n}.layer_norm.weight": (width,) for n in (0, 1)}
    bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    return shapes | {bias: (32, 64)}


# -- Transformers -------------------------------------------------------------------------------


def flux(channels=64, guidance=True, double=19, single=38):
    """FLUX.1 in the names of its makers."""
    width = 3072
    shapes = _affine("img_in", width, channels) | _affine("txt_in", width, 4096)
    inputs = {"time_in": 256, "vector_in": 768} | ({"guidance_in": 256} if guidance else {})
    for name, size in inputs.items():
        shapes |= _affine(f"{name}.in_layer", width, size)
        shapes |= _affine(f"{name}.out_layer", width, width)
    for number in range(double):
        for side in ("img", "txt"):
            block = f"double_blocks.{number}.{side}"
            shapes |= _affine(f"{block}_mod.lin", 6 * width, width)
            shapes |= _affine(f"{block}_attn.qkv", 3 * width, width)
            shapes |= _affine(f"{block}_attn.proj", width, width)
            shapes |= {f"{block}_attn.norm.{name}_norm.scale": (128,) for name in ("query", "key")}
            shapes |= _affine(f"{block}_mlp.0", 4 * width, width)
            shapes |= _affine(f"{block}_mlp.2", width, 4 * width)
    for number in range(single):
        block = f"single_blocks.{number}"
        shapes |= _affine(f"{block}.linear1", 7 * width, width)
        shapes |= _affine(f"{block}.linear2", width, 5 * width)
        shapes |= {f"{block}.norm.{name}_norm.scale": (128,) for name in ("query", "key")}
        shapes |= _affine(f"{block}.modulation.lin", 3 * width, width)
    shapes |= _affine("final_layer.adaLN_modulation.1", 2 * width, width)
    return shapes | _affine("final_layer.linear", 64, width)


def diffusers_flux(channels=64, guidance=True, double=19, single=38):
    """FLUX.1 in diffusers' names."""
    width = 3072
    shapes = _affine("x_embedder", width, channels) | _affine("context_embedder", width, 4096)
    inputs = {"timestep": 256, "text": 768} | ({"guidance": 256} if guidance else {})
    for name, size in inputs.items():
        shapes |= _affine(f"time_text_embed.{name}_embedder.linear_1", width, size)
        shapes |= _affine(f"time_text_embed.{name}_embedder.linear_2", width, width)
    for number in range(double):
        block = f"transformer_blocks.{number}"
        for side in ("", "_context"):
            shapes |= _affine(f"{block}.norm1{side}.linear", 6 * width, width)
            shapes |= _affine(f"{block}.ff{side}.net.0.proj", 4 * width, width)
            shapes |= _affine(f"{block}.ff{side}.net.2", width, 4 * width)
        names = "to_q to_k to_v add_q_proj add_k_proj add_v_proj to_out.0 to_add_out"
        for name in names.split():
            shapes |= _affine(f"{block}.attn.{name}", width, width)
        norms = "norm_q norm_k norm_added_q norm_added_k"
        shapes |= {f"{block}.attn.{name}.weight": (128,) for name in norms.split()}
    for number in range(single):
        block = f"single_transformer_blocks.{number}"
        shapes |= _affine(f"{block}.norm.linear", 3 * width, width)
        shapes |= _affine(f"{block}.proj_mlp", 4 * width, width)
        shapes |= _affine(f"{block}.proj_out", width, 5 * width)
        for name in ("to_q", "to_k", "to_v"):
            shapes |= _affine(f"{block}.attn.{name}", width, width)
        shapes |= {f"{block}.attn.{name}.weight": (128,) for name in ("norm_q", "norm_k")}
    return shapes | _affine("norm_out.linear", 2 * width, width) | _affine("proj_out", 64, width)


def sd3(layers=24, positions=192, dual=(), norms=False):
    """Stable Diffusion 3 in the names of its makers. dual: blocks with a second attention."""
    width = 64 * layers
    shapes = {"pos_embed": (1, positions**2, width)} | _affine("x_embedder.proj", width, 16, 2, 2)
    shapes |= _affine("context_embedder", width, 4096)
    for name, size in (("t", 256), ("y", 2048)):
        shapes |= _affine(f"{name}_embedder.mlp.0", width, size)
        shapes |= _affine(f"{name}_embedder.mlp.2", width, width)
    for number in range(layers):
        for side in ("x_block", "context_block"):
            block, is_x = f"joint_blocks.{number}.{side}", side == "x_block"
            is_last = number == layers - 1 and not is_x
            attentions = ["attn", "attn2"] if is_x and number in dual else ["attn"]
            times = 2 if is_last else 9 if len(attentions) > 1 else 6
            shapes |= _affine(f"{block}.adaLN_modulation.1", times * width, width)
            for attention in attentions:
                shapes |= _affine(f"{block}.{attention}.qkv", 3 * width, width)
                if not is_last:
                    shapes |= _affine(f"{block}.{attention}.proj", width, width)
                if norms:
                    names = (f"{block}.{attention}.ln_{name}.weight" for name in "qk")
                    shapes |= dict.fromkeys(names, (64,))
            if not is_last:
                shapes |= _affine(f"{block}.mlp.fc1", 4 * width, width)
                shapes |= _affine(f"{block}.mlp.fc2", width, 4 * width)
    shapes |= _affine("final_layer.adaLN_modulation.1", 2 * width, width)
    return shapes | _affine("final_layer.linear", 64, width)


def diffusers_sd3(layers=24, positions=192):
    """Stable Diffusion 3 (medium) in diffusers' names."""
    width = 64 * layers
    shapes = {"pos_embed.pos_embed": (1, positions**2, width)}
    shapes |= _affine("pos_embed.proj", width, 16, 2, 2)
    shapes |= _affine("context_embedder", width, 4096)
    for name, size in (("timestep", 256), ("text", 2048)):
        shapes |= _affine(f"time_text_embed.{name}_embedder.linear_1", width, size)
        shapes |= _affine(f"time_text_embed.{name}_embedder.linear_2", width, width)
    for number in range(layers):
        block, is_last = f"transformer_blocks.{number}", number == layers - 1
        shapes |= _affine(f"{block}.norm1.linear", 6 * width, width)
        shapes |= _affine(f"{block}.norm1_context.linear", (2 if is_last else 6) * width, width)
        names = ["to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_out.0"]
        for name in names if is_last else [*names, "to_add_out"]:
            shapes |= _affine(f"{block}.attn.{name}", width, width)
        for side in ("",) if is_last else ("", "_context"):
            shapes |= _affine(f"{block}.ff{side}.net.0.proj", 4 * width, width)
            shapes |= _affine(f"{block}.ff{side}.net.2", width, 4 * width)
    return shapes | _affine("norm_out.linear", 2 * width, width) | _affine("proj_out", 64, width)


# -- LoRAs and their like -----------------------------------------------------------------------


def layers_of(shapes, *parts):
    """The weights of layers whose names hold one of these parts, by name."""
    return {
        name.removesuffix(".weight"): shape
        for name, shape in shapes.items()
        if name.endswith(".weight") and len(shape) in (2, 4) and any(p in name for p in parts)
    }


ATTENTION = ("transformer_blocks", "proj_in", "proj_out")
TEXT = ("self_attn", "mlp")


def _down(shape, rank):
    return (rank, *shape[1:])


def _up(shape, rank):
    return (shape[0], rank, *(1,) * (len(shape) - 2))


def kohya(layers, prefix="lora_unet_", rank=16, has_alpha=True, dora=False):
    shapes = {}
    for layer, shape in layers.items():
        name = prefix + layer.replace(".", "_")
        shapes[f"{name}.lora_down.weight"] = _down(shape, rank)
        shapes[f"{name}.lora_up.weight"] = _up(shape, rank)
        if has_alpha:
            shapes[f"{name}.alpha"] = ()
        if dora:
            shapes[f"{name}.dora_scale"] = (shape[0], *(1,) * (len(shape) - 1))
    return shapes


def pairs(layers, prefix="unet.", rank=16, halves=("lora_A", "lora_B")):
    """As peft and diffusers write them."""
    shapes = {}
    for layer, shape in layers.items():
        shapes[f"{prefix}{layer}.{halves[0]}.weight"] = _down(shape, rank)
        shapes[f"{prefix}{layer}.{halves[1]}.weight"] = _up(shape, rank)
    return shapes


def processors(layers, prefix="unet.", rank=4):
    """As diffusers wrote them first: by the processors of the attentions."""
    shapes = {}
    for layer, shape in layers.items():
        if ".attn" in layer:
            block, _, name = layer.removesuffix(".0").rpartition(".")
            shapes[f"{prefix}{block}.processor.{name}_lora.down.weight"] = _down(shape, rank)
            shapes[f"{prefix}{block}.processor.{name}_lora.up.weight"] = _up(shape, rank)
    return shapes


def loha(layers, prefix="lora_unet_", rank=8):
    shapes = {}
    for layer, shape in layers.items():
        name = prefix + layer.replace(".", "_")
        for number in (1, 2):
            shapes[f"{name}.hada_w{number}_a"] = (shape[0], rank)
            shapes[f"{name}.hada_w{number}_b"] = (rank, math.prod(shape[1:]))
        shapes[f"{name}.alpha"] = ()
    return shapes


def full(layers, prefix="lora_unet_"):
    return {f"{prefix}{name.replace('.', '_')}.diff": shape for name, shape in layers.items()}


def lokr(layers, prefix="lora_unet_", factor=8, rank=None):
    """The first matrix is `factor` squared; the second whole, or of a rank."""
    shapes = {}
    for layer, shape in layers.items():
        name = prefix + layer.replace(".", "_")
        outer, inner = shape[0] // factor, shape[1] // factor
        shapes[f"{name}.lokr_w1"] = (factor, factor)
        if rank is None:
            shapes[f"{name}.lokr_w2"] = (outer, inner, *shape[2:])
        else:
            shapes[f"{name}.lokr_w2_a"] = (outer, rank)
            shapes[f"{name}.lokr_w2_b"] = (rank, math.prod((inner, *shape[2:])))
        shapes[f"{name}.alpha"] = ()
    return shapes


# -- ControlNets, IP adapters, upscalers --------------------------------------------------------


def ldm_controlnet(text=768):
    unet = ldm_unet(text)
    shapes = {name: shape for name, shape in unet.items() if not name.startswith("out")}
    sides = (3, 16, 16, 32, 32, 96, 96, 256, 320)
    for number, (inner, outer) in enumerate(itertools.pairwise(sides)):
        shapes |= _affine(f"input_hint_block.{2 * number}", outer, inner, 3, 3)
    for number in range(12):
        width = unet.get(f"input_blocks.{number}.0.out_layers.0.weight", (320,))[0]
        shapes |= _affine(f"zero_convs.{number}.0", width, width, 1, 1)
    return shapes | _affine("middle_block_out.0", 1280, 1280, 1, 1)


def diffusers_controlnet(unet, levels=4):
    shapes = {
        name: shape
        for name, shape in in_diffusers_names(unet, levels).items()
        if not name.startswith(("up_blocks", "conv_norm_out", "conv_out"))
    }
    shapes |= _affine("controlnet_cond_embedding.conv_in", 16, 3, 3, 3)
    shapes |= _affine("controlnet_cond_embedding.conv_out", 320, 256, 3, 3)
    for number in range(3 * levels):
        shapes |= _affine(f"controlnet_down_blocks.{number}", 320, 320, 1, 1)
    return shapes | _affine("controlnet_mid_block", 1280, 1280, 1, 1)


def ip_adapter(text=768, layers=16, form="plain", image=1024):
    shapes = {}
    if form == "plain":
        shapes |= _affine("image_proj.proj", 4 * text, image) | _affine("image_proj.norm", text)
    if form == "plus":
        shapes = {"image_proj.latents": (1, 16, 768)} | _affine("image_proj.proj_in", 768, 1280)
    if form == "full":
        shapes |= _affine("image_proj.proj.0", 1280, 1280)
        shapes |= _affine("image_proj.proj.2", text, 1280) | _affine("image_proj.proj.3", text)
    if form == "face id":
        shapes |= _affine("image_proj.proj.0", 1024, 512) | _affine("image_proj.norm", text)
        shapes |= {"ip_adapter.0.to_q_lora.down.weight": (128, 320)}
        shapes |= {"ip_adapter.0.to_q_lora.up.weight": (320, 128)}
    for number in range(layers):
        for name in ("to_k_ip", "to_v_ip"):
            shapes[f"ip_adapter.{2 * number + 1}.{name}.weight"] = (320, text)
    return shapes


def esrgan(blocks=23):
    """As in the first files; `1.sub.23` is the layer after the blocks."""
    shapes = _affine("model.0", 64, 3, 3, 3)
    for block in range(blocks):
        for part in (1, 2, 3):
            for conv in range(1, 6):
                name = f"model.1.sub.{block}.RDB{part}.conv{conv}.0"
                shapes |= _affine(name, 64 if conv == 5 else 32, 64 + 32 * (conv - 1), 3, 3)
    shapes |= _affine(f"model.1.sub.{blocks}", 64, 64, 3, 3)
    for layer in (3, 6, 8):
        shapes |= _affine(f"model.{layer}", 64, 64, 3, 3)
    return shapes | _affine("model.10", 3, 64, 3, 3)


def real_esrgan(blocks=23):
    shapes = _affine("conv_first", 64, 3, 3, 3) | _affine("conv_body", 64, 64, 3, 3)
    for block in range(blocks):
        for part in (1, 2, 3):
            for conv in range(1, 6):
                name = f"body.{block}.rdb{part}.conv{conv}"
                shapes |= _affine(name, 64 if conv == 5 else 32, 64 + 32 * (conv - 1), 3, 3)
    for name in ("conv_up1", "conv_up2", "conv_hr"):
        shapes |= _affine(name, 64, 64, 3, 3)
    return shapes | _affine("conv_last", 3, 64, 3, 3)


def compact_esrgan(layers=32):
    shapes = _affine("body.0", 64, 3, 3, 3) | {"body.1.weight": (64,)}
    for number in range(1, layers + 1):
        shapes |= _affine(f"body.{2 * number}", 64, 64, 3, 3)
        shapes[f"body.{2 * number + 1}.weight"] = (64,)
    return shapes | _affine(f"body.{2 * layers + 2}", 48, 64, 3, 3)


# -- Whole files --------------------------------------------------------------------------------

SCHEDULE = {"alphas_cumprod": ("F32", (1000,)), "betas": ("F32", (1000,))}


def ema_of(unet):
    """LDM keeps the copies under names without dots."""
    names = {name: "diffusion_model" + name.replace(".", "") for name in unet}
    copies = {f"model_ema.{names[name]}": ("F32", shape) for name, shape in unet.items()}
    return copies | {"model_ema.decay": ("F32", ()), "model_ema.num_updates": ("I64", ())}


def sd_checkpoint(text=768, channels=4, vae=True, texts=True, prefix="text_model."):
    shapes = under("model.diffusion_model.", ldm_unet(text, channels)) | SCHEDULE
    if vae:
        shapes |= under("first_stage_model.", ldm_vae())
    if texts and text == 768:
        encoder = clip(prefix=prefix)
        encoder[f"{prefix}embeddings.position_ids"] = ("I64", (1, 77))
        shapes |= under("cond_stage_model.transformer.", encoder)
    if texts and text == 1024:
        shapes |= under("cond_stage_model.model.", open_clip())
    return shapes


def xl_checkpoint(channels=4, vae=True, both=True):
    shapes = under("model.diffusion_model.", ldm_unet(channels=channels, **XL)) | SCHEDULE
    if vae:
        shapes |= under("first_stage_model.", ldm_vae())
    shapes |= under("conditioner.embedders.0.transformer.", clip())
    return shapes | (under("conditioner.embedders.1.model.", open_clip(1280, 32)) if both else {})


def refiner_checkpoint():
    shapes = under("model.diffusion_model.", ldm_unet(**REFINER)) | SCHEDULE
    shapes |= under("first_stage_model.", ldm_vae())
    return shapes | under("conditioner.embedders.0.model.", open_clip(1280, 32))


def all_in_one(transformer, *encoders, latents=16):
    """Flux and SD3 as people pack them. encoders: of clip_l, clip_g, t5xxl."""
    forms = {"clip_l": clip(), "clip_g": clip(1280, 32), "t5xxl": t5()}
    shapes = under("model.diffusion_model.", transformer) | under("vae.", ldm_vae(latents))
    for name in encoders:
        shapes |= under(f"text_encoders.{name}.transformer.", forms[name])
    return shapes


def of_type(dtype, shapes):
    """Give a type to all that have none of their own."""
    is_typed = {name: bool(said) and isinstance(said[0], str) for name, said in shapes.items()}
    return {n: said if is_typed[n] else (dtype, said) for n, said in shapes.items()}


_SD1, _SD2, _XL = ldm_unet(), ldm_unet(1024), ldm_unet(**XL)
_SD1_LAYERS = layers_of(in_diffusers_names(_SD1), *ATTENTION)
_SD2_LAYERS = layers_of(in_diffusers_names(_SD2), *ATTENTION)
_XL_LAYERS = layers_of(in_diffusers_names(_XL, 3), *ATTENTION)
_XL_LDM_LAYERS = layers_of(_XL, *ATTENTION)
_CLIP_L, _CLIP_G = layers_of(clip(), *TEXT), layers_of(clip(1280, 32), *TEXT)
_FLUX_LAYERS = layers_of(flux(), "attn", "mlp", "linear1", "linear2", "mod")
_DIT_LAYERS = layers_of(diffusers_flux(), "attn.")
_SD3_LAYERS = layers_of(sd3(), "qkv", "attn.proj", "fc1", "fc2")
_SD3_DIT_LAYERS = layers_of(diffusers_sd3(), "attn.")
_SD1_CONVS = layers_of(in_diffusers_names(_SD1), "resnets", "samplers", *ATTENTION)
_TE = {"prefix": "lora_te_"}

CHECKPOINTS = {
    "sd1": sd_checkpoint,
    "sd1-with-ema": lambda: sd_checkpoint() | ema_of(_SD1),
    "sd1-no-vae": lambda: sd_checkpoint(vae=False),
    "sd1-old-text-keys": lambda: sd_checkpoint(prefix=""),
    "sd1-inpainting": lambda: sd_checkpoint(channels=9),
    "sd1-pix2pix": lambda: sd_checkpoint(channels=8),
    "sd1-unet": lambda: under("model.diffusion_model.", _SD1),
    "sd1-unet-bare": lambda: _SD1,
    "sd1-unet-diffusers": lambda: in_diffusers_names(_SD1),
    "sd1-flat": lambda: (
        under("unet.", in_diffusers_names(_SD1))
        | under("vae.", diffusers_vae())
        | under("text_encoder.", clip())
    ),
    "sd2": lambda: sd_checkpoint(1024),
    "sd2-inpainting": lambda: sd_checkpoint(1024, channels=9),
    "sd2-depth": lambda: sd_checkpoint(1024, channels=5),
    "sdxl": xl_checkpoint,
    "sdxl-no-vae": lambda: xl_checkpoint(vae=False),
    "sdxl-no-clip-g": lambda: xl_checkpoint(both=False),
    "sdxl-inpainting": lambda: xl_checkpoint(channels=9),
    "sdxl-v-zsnr": lambda: xl_checkpoint() | {"v_pred": (1,), "ztsnr": (1,)},
    "sdxl-edm": lambda: xl_checkpoint() | {"edm_mean": (4,), "edm_std": (4,)},
    "sdxl-unet-diffusers": lambda: in_diffusers_names(_XL, 3),
    "sdxl-refiner": refiner_checkpoint,
    "flux-dev": flux,
    "flux-schnell": lambda: under("model.diffusion_model.", flux(guidance=False)),
    "flux-fill": lambda: flux(channels=384),
    "flux-depth": lambda: flux(channels=128),
    "flux-diffusers": diffusers_flux,
    "flux-all-in-one-fp8": lambda: of_type("F8_E4M3", all_in_one(flux(), "clip_l", "t5xxl")),
    "flux-scaled-fp8": lambda: (
        of_type("F8_E4M3", flux())
        | {
            "scaled_fp8": ("F8_E4M3", (2,)),
            "double_blocks.0.img_attn.qkv.scale_weight": ("F32", ()),
        }
    ),
    "flux-nf4": lambda: (
        flux()
        | {"double_blocks.0.img_attn.qkv.weight.quant_state.bitsandbytes__nf4": ("U8", (100,))}
    ),
    "sd3-medium": lambda: (
        under("model.diffusion_model.", sd3()) | under("first_stage_model.", ldm_vae(16))
    ),
    "sd3-all-in-one": lambda: all_in_one(sd3(), "clip_l", "clip_g", "t5xxl"),
    "sd3-transformer": lambda: under("model.diffusion_model.", sd3()),
    "sd3-diffusers": diffusers_sd3,
    "sd35-large": lambda: under("model.diffusion_model.", sd3(38, norms=True)),
    "sd35-medium": lambda: under(
        "model.diffusion_model.", sd3(24, 384, dual=range(13), norms=True)
    ),
}
ADAPTERS = {
    "lora-sd1-kohya": lambda: kohya(_SD1_LAYERS) | kohya(_CLIP_L, **_TE),
    "lora-sd2-kohya": lambda: kohya(_SD2_LAYERS),
    "lora-sd1-text-only": lambda: kohya(_CLIP_L, **_TE),
    "lora-sd1-peft": lambda: pairs(_SD1_LAYERS) | pairs(_CLIP_L, "text_encoder."),
    "lora-sd1-peft-bare": lambda: pairs(_SD1_LAYERS, ""),
    "lora-sd1-peft-saved": lambda: pairs(_SD1_LAYERS, "base_model.model."),
    "lora-sd1-diffusers": lambda: pairs(_SD1_LAYERS, halves=("lora.down", "lora.up")),
    "lora-sd1-processors": lambda: processors(_SD1_LAYERS),
    "lora-sd1-self-attention": lambda: kohya(
        {name: shape for name, shape in _SD1_LAYERS.items() if "attn1" in name}
    ),
    "lora-xl-kohya": lambda: (
        kohya(_XL_LDM_LAYERS) | kohya(_CLIP_L, "lora_te1_") | kohya(_CLIP_G, "lora_te2_")
    ),
    "lora-xl-kohya-diffusers": lambda: kohya(_XL_LAYERS),
    "lora-xl-peft": lambda: pairs(_XL_LAYERS),
    "lora-xl-self-attention": lambda: kohya(
        {name: shape for name, shape in _XL_LDM_LAYERS.items() if "attn1" in name}
    ),
    "lora-xl-text-only": lambda: kohya(_CLIP_L, "lora_te1_") | kohya(_CLIP_G, "lora_te2_"),
    "lora-flux-kohya": lambda: kohya(_FLUX_LAYERS),
    "lora-flux-peft": lambda: pairs(_DIT_LAYERS, "transformer."),
    "lora-flux-comfy": lambda: pairs(_FLUX_LAYERS, "diffusion_model."),
    "lora-flux-peft-bare": lambda: pairs(_DIT_LAYERS, ""),
    "lora-flux-bare": lambda: pairs(_FLUX_LAYERS, ""),
    "lora-text-peft-bare": lambda: pairs(_CLIP_L, ""),
    "lora-flux-onetrainer": lambda: kohya(_DIT_LAYERS, "lora_transformer_"),
    "lora-flux-xlabs": lambda: {
        f"double_blocks.{number}.processor.qkv_lora{side}.{half}.weight": shape
        for number in range(19)
        for side in (1, 2)
        for half, shape in (("down", (16, 3072)), ("up", (9216, 16)))
    },
    "lora-sd3-kohya": lambda: kohya(_SD3_LAYERS),
    "lora-sd3-peft": lambda: pairs(_SD3_DIT_LAYERS, "transformer."),
    "locon-sd1": lambda: kohya(_SD1_CONVS),
    "dora-sd1-kohya": lambda: kohya(_SD1_LAYERS, dora=True),
    "dora-xl-peft": lambda: (
        pairs(_XL_LAYERS)
        | {f"unet.{name}.lora_magnitude_vector": shape[:1] for name, shape in _XL_LAYERS.items()}
    ),
    "loha-sd1": lambda: loha(_SD1_LAYERS),
    "loha-xl": lambda: loha(_XL_LDM_LAYERS),
    "lokr-sd1": lambda: lokr(_SD1_LAYERS),
    "lokr-xl-ranked": lambda: lokr(_XL_LDM_LAYERS, rank=12),
    "full-sd1": lambda: full(_SD1_LAYERS),
    "lokr-flux-lycoris": lambda: lokr(_DIT_LAYERS, "lycoris_", factor=16),
}
SMALL = {
    "embedding-sd1-a1111": lambda: {"emb_params": (8, 768)},
    "embedding-sd2-a1111": lambda: {"emb_params": (8, 1024)},
    "embedding-sd1-diffusers": lambda: {"<cat-toy>": (768,)},
    "embedding-sd1-converted": lambda: {"string_to_param.*": (4, 768)},
    "embedding-xl": lambda: {"clip_l": (4, 768), "clip_g": (4, 1280)},
    "embedding-xl-clip-g": lambda: {"clip_g": (4, 1280)},
    "embedding-clip-l": lambda: {"clip_l": (4, 768)},
    "embedding-sd3": lambda: {"clip_l": (4, 768), "clip_g": (4, 1280), "t5xxl": (4, 4096)},
    "embedding-flux": lambda: {"clip_l": (4, 768), "t5xxl": (4, 4096)},
    "vae-ldm": ldm_vae,
    "vae-ldm-prefixed": lambda: under("first_stage_model.", ldm_vae()),
    "vae-diffusers": diffusers_vae,
    "vae-16": lambda: ldm_vae(16),
    "text-clip-l": clip,
    "text-clip-l-flat": lambda: clip(prefix=""),
    "text-clip-h": open_clip,
    "text-clip-g": lambda: clip(1280, 32),
    "text-t5xxl": t5,
    "controlnet-sd1-ldm": lambda: under("control_model.", ldm_controlnet()),
    "controlnet-sd2-ldm-bare": lambda: ldm_controlnet(1024),
    "controlnet-sd1-diffusers": lambda: diffusers_controlnet(_SD1),
    "controlnet-xl-diffusers": lambda: diffusers_controlnet(_XL, 3),
    "controlnet-xl-union": lambda: (
        diffusers_controlnet(_XL, 3)
        | _affine("control_add_embedding.linear_1", 1280, 1536)
        | {"task_embedding": (6, 320)}
    ),
    "controlnet-flux": lambda: (
        diffusers_flux(double=5, single=10)
        | _affine("controlnet_x_embedder", 3072, 64)
        | _affine("controlnet_blocks.0", 3072, 3072)
    ),
    "controlnet-sd3": lambda: (
        diffusers_sd3(6)
        | _affine("pos_embed_input.proj", 384, 16, 2, 2)
        | _affine("controlnet_blocks.0", 384, 384)
    ),
    "ip-adapter-sd1": ip_adapter,
    "ip-adapter-sd1-plus": lambda: ip_adapter(form="plus"),
    "ip-adapter-sd1-full": lambda: ip_adapter(form="full"),
    "ip-adapter-sd1-face-id": lambda: ip_adapter(form="face id"),
    "ip-adapter-xl": lambda: ip_adapter(2048, 70, image=1280),
    "ip-adapter-flux": lambda: {
        "ip_adapter_proj_model.proj.weight": (16384, 768),
        "double_blocks.0.processor.ip_adapter_double_stream_k_proj.weight": (3072, 4096),
    },
    "upscaler-esrgan": esrgan,
    "upscaler-real-esrgan": real_esrgan,
    "upscaler-compact": compact_esrgan,
    "upscaler-swinir": lambda: (
        _affine("conv_first", 180, 3, 3, 3)
        | _affine("layers.0.residual_group.blocks.0.norm1", 180)
        | _affine("conv_last", 3, 64, 3, 3)
    ),
}
FILES = CHECKPOINTS | ADAPTERS | SMALL


def write_named(folder, name, **changes):
    """Write the file of this name; see `FILES`."""
    return write(folder / f"{name}.safetensors", FILES[name](), **changes)
