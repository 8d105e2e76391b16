"""Transformers that denoise: FLUX.1 and Stable Diffusion 3."""

from tests.community_files.shapes import affine


def flux(channels=64, guidance=True, double=19, single=38):
    """FLUX.1 in the names of its makers."""
    width = 3072
    shapes = affine("img_in", width, channels) | affine("txt_in", width, 4096)
    inputs = {"time_in": 256, "vector_in": 768} | ({"guidance_in": 256} if guidance else {})
    for name, size in inputs.items():
        shapes |= affine(f"{name}.in_layer", width, size)
        shapes |= affine(f"{name}.out_layer", width, width)
    for number in range(double):
        for side in ("img", "txt"):
            block = f"double_blocks.{number}.{side}"
            shapes |= affine(f"{block}_mod.lin", 6 * width, width)
            shapes |= affine(f"{block}_attn.qkv", 3 * width, width)
            shapes |= affine(f"{block}_attn.proj", width, width)
            shapes |= {f"{block}_attn.norm.{name}_norm.scale": (128,) for name in ("query", "key")}
            shapes |= affine(f"{block}_mlp.0", 4 * width, width)
            shapes |= affine(f"{block}_mlp.2", width, 4 * width)
    for number in range(single):
        block = f"single_blocks.{number}"
        shapes |= affine(f"{block}.linear1", 7 * width, width)
        shapes |= affine(f"{block}.linear2", width, 5 * width)
        shapes |= {f"{block}.norm.{name}_norm.scale": (128,) for name in ("query", "key")}
        shapes |= affine(f"{block}.modulation.lin", 3 * width, width)
    shapes |= affine("final_layer.adaLN_modulation.1", 2 * width, width)
    return shapes | affine("final_layer.linear", 64, width)


def diffusers_flux(channels=64, guidance=True, double=19, single=38):
    """FLUX.1 in diffusers' names."""
    width = 3072
    shapes = affine("x_embedder", width, channels) | affine("context_embedder", width, 4096)
    inputs = {"timestep": 256, "text": 768} | ({"guidance": 256} if guidance else {})
    for name, size in inputs.items():
        shapes |= affine(f"time_text_embed.{name}_embedder.linear_1", width, size)
        shapes |= affine(f"time_text_embed.{name}_embedder.linear_2", width, width)
    for number in range(double):
        block = f"transformer_blocks.{number}"
        for side in ("", "_context"):
            shapes |= affine(f"{block}.norm1{side}.linear", 6 * width, width)
            shapes |= affine(f"{block}.ff{side}.net.0.proj", 4 * width, width)
            shapes |= affine(f"{block}.ff{side}.net.2", width, 4 * width)
        names = "to_q to_k to_v add_q_proj add_k_proj add_v_proj to_out.0 to_add_out"
        for name in names.split():
            shapes |= affine(f"{block}.attn.{name}", width, width)
        norms = "norm_q norm_k norm_added_q norm_added_k"
        shapes |= {f"{block}.attn.{name}.weight": (128,) for name in norms.split()}
    for number in range(single):
        block = f"single_transformer_blocks.{number}"
        shapes |= affine(f"{block}.norm.linear", 3 * width, width)
        shapes |= affine(f"{block}.proj_mlp", 4 * width, width)
        shapes |= affine(f"{block}.proj_out", width, 5 * width)
        for name in ("to_q", "to_k", "to_v"):
            shapes |= affine(f"{block}.attn.{name}", width, width)
        shapes |= {f"{block}.attn.{name}.weight": (128,) for name in ("norm_q", "norm_k")}
    return shapes | affine("norm_out.linear", 2 * width, width) | affine("proj_out", 64, width)


def sd3(layers=24, positions=192, dual=(), norms=False):
    """Stable Diffusion 3 in the names of its makers. dual: blocks with a second attention."""
    width = 64 * layers
    shapes = {"pos_embed": (1, positions**2, width)} | affine("x_embedder.proj", width, 16, 2, 2)
    shapes |= affine("context_embedder", width, 4096)
    for name, size in (("t", 256), ("y", 2048)):
        shapes |= affine(f"{name}_embedder.mlp.0", width, size)
        shapes |= affine(f"{name}_embedder.mlp.2", width, width)
    for number in range(layers):
        for side in ("x_block", "context_block"):
            block, is_x = f"joint_blocks.{number}.{side}", side == "x_block"
            is_last = number == layers - 1 and not is_x
            attentions = ["attn", "attn2"] if is_x and number in dual else ["attn"]
            times = 2 if is_last else 9 if len(attentions) > 1 else 6
            shapes |= affine(f"{block}.adaLN_modulation.1", times * width, width)
            for attention in attentions:
                shapes |= affine(f"{block}.{attention}.qkv", 3 * width, width)
                if not is_last:
                    shapes |= affine(f"{block}.{attention}.proj", width, width)
                if norms:
                    names = (f"{block}.{attention}.ln_{name}.weight" for name in "qk")
                    shapes |= dict.fromkeys(names, (64,))
            if not is_last:
                shapes |= affine(f"{block}.mlp.fc1", 4 * width, width)
                shapes |= affine(f"{block}.mlp.fc2", width, 4 * width)
    shapes |= affine("final_layer.adaLN_modulation.1", 2 * width, width)
    return shapes | affine("final_layer.linear", 64, width)


def diffusers_sd3(layers=24, positions=192):
    """Stable Diffusion 3 (medium) in diffusers' names."""
    width = 64 * layers
    shapes = {"pos_embed.pos_embed": (1, positions**2, width)}
    shapes |= affine("pos_embed.proj", width, 16, 2, 2)
    shapes |= affine("context_embedder", width, 4096)
    for name, size in (("timestep", 256), ("text", 2048)):
        shapes |= affine(f"time_text_embed.{name}_embedder.linear_1", width, size)
        shapes |= affine(f"time_text_embed.{name}_embedder.linear_2", width, width)
    for number in range(layers):
        block, is_last = f"transformer_blocks.{number}", number == layers - 1
        shapes |= affine(f"{block}.norm1.linear", 6 * width, width)
        shapes |= affine(f"{block}.norm1_context.linear", (2 if is_last else 6) * width, width)
        names = ["to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_out.0"]
        for name in names if is_last else [*names, "to_add_out"]:
            shapes |= affine(f"{block}.attn.{name}", width, width)
        for side in ("",) if is_last else ("", "_context"):
            shapes |= affine(f"{block}.ff{side}.net.0.proj", 4 * width, width)
            shapes |= affine(f"{block}.ff{side}.net.2", width, 4 * width)
    return shapes | affine("norm_out.linear", 2 * width, width) | affine("proj_out", 64, width)
