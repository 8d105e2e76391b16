"""Text encoders: CLIP, OpenCLIP and T5."""

from tests.community_files.shapes import affine, under


def clip(width=768, layers=12, prefix="text_model."):
    shapes = {
        "embeddings.token_embedding.weight": (49408, width),
        "embeddings.position_embedding.weight": (77, width),
    }
    for number in range(layers):
        layer = f"encoder.layers.{number}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= affine(f"{layer}.self_attn.{name}", width, width)
        shapes |= affine(f"{layer}.mlp.fc1", 4 * width, width)
        shapes |= affine(f"{layer}.mlp.fc2", width, 4 * width)
        for name in ("layer_norm1", "layer_norm2"):
            shapes |= affine(f"{layer}.{name}", width)
    return under(prefix, shapes | affine("final_layer_norm", width))


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
        shapes |= affine(f"{block}.attn.out_proj", width, width)
        shapes |= affine(f"{block}.ln_1", width) | affine(f"{block}.ln_2", width)
        shapes |= affine(f"{block}.mlp.c_fc", 4 * width, width)
        shapes |= affine(f"{block}.mlp.c_proj", width, 4 * width)
    return shapes | affine("ln_final", width)


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
