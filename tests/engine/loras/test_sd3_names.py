"""Names of LoRAs of Stable Diffusion 3 as kohya's and ComfyUI's files have them."""

import pytest
import torch

from serve_app.pipelines.addons.lora_sd3 import in_diffusers_names

DOWN, UP = torch.arange(8.0).view(2, 4), torch.arange(24.0).view(12, 2)
FORMS = {
    "kohya": ("lora_unet_{}", ("lora_down", "lora_up")),
    "comfy": ("diffusion_model.{}", ("lora_A", "lora_B")),
}


@pytest.fixture(params=FORMS)
def rename(request):
    """Give what a file says of one layer, by its makers' name, the names of diffusers."""
    prefix, halves = FORMS[request.param]

    def rename(layer: str, up: torch.Tensor = UP) -> dict[str, torch.Tensor]:
        written = prefix.format(layer.replace(".", "_") if request.param == "kohya" else layer)
        file = {
            f"{written}.{half}.weight": one for half, one in zip(halves, (DOWN, up), strict=True)
        }
        return in_diffusers_names(file | {f"{written}.alpha": torch.tensor(4.0)})

    return rename


@pytest.mark.parametrize(
    ("layer", "others"),
    [
        ("joint_blocks.7.x_block.attn.qkv", ("attn.to_q", "attn.to_k", "attn.to_v")),
        ("joint_blocks.7.x_block.attn2.qkv", ("attn2.to_q", "attn2.to_k", "attn2.to_v")),
        (
            "joint_blocks.7.context_block.attn.qkv",
            ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
        ),
        ("joint_blocks.7.x_block.mlp.fc2", ("ff.net.2",)),
    ],
)
def test_each_part_has_the_lower_matrix_and_the_rows_of_its_own(rename, layer, others):
    named = rename(layer)
    parts = UP.chunk(len(others))
    for other, part in zip(others, parts, strict=True):
        path = f"transformer.transformer_blocks.7.{other}"
        assert torch.equal(named.pop(f"{path}.lora_A.weight"), DOWN)
        assert torch.equal(named.pop(f"{path}.lora_B.weight"), part)
    assert named == {}  # what alpha says is said in the matrices already


@pytest.mark.parametrize(
    ("layer", "other", "rows", "is_turned"),
    [
        ("final_layer.adaLN_modulation.1", "norm_out.linear", 8, True),
        (
            "joint_blocks.3.context_block.adaLN_modulation.1",
            "transformer_blocks.3.norm1_context.linear",
            8,
            True,
        ),
        (
            "joint_blocks.3.context_block.adaLN_modulation.1",
            "transformer_blocks.3.norm1_context.linear",
            24,
            False,
        ),
        (
            "joint_blocks.3.x_block.adaLN_modulation.1",
            "transformer_blocks.3.norm1.linear",
            8,
            False,
        ),
        ("final_layer.linear", "proj_out", 8, False),
        ("t_embedder.mlp.0", "time_text_embed.timestep_embedder.linear_1", 8, False),
    ],
)
def test_scale_comes_before_shift_where_the_model_ends(rename, layer, other, rows, is_turned):
    up = torch.arange(2.0 * rows).view(rows, 2)
    expected = torch.cat([up[rows // 2 :], up[: rows // 2]]) if is_turned else up
    assert torch.equal(rename(layer, up)[f"transformer.{other}.lora_B.weight"], expected)


@pytest.mark.parametrize(("number", "component"), [("1", "text_encoder"), ("2", "text_encoder_2")])
def test_layers_of_the_text_encoders_are_theirs(number, component):
    written = f"lora_te{number}_text_model_encoder_layers_5_self_attn_q_proj"
    named = in_diffusers_names({f"{written}.lora_down.weight": DOWN, f"{written}.alpha": UP})
    path = f"{component}.text_model.encoder.layers.5.self_attn.q_proj"
    assert list(named) == [f"{path}.lora_A.weight"]


@pytest.mark.parametrize(
    "name",
    [
        "transformer.proj_out.lora_A.weight",
        "lora_unet_joint_blocks_7_x_block_unknown.lora_down.weight",
        "lora_te3_encoder_block_0.alpha",
    ],
)
def test_all_else_stays_as_it_is(name):
    assert in_diffusers_names({name: DOWN}) == {name: DOWN}
