"""Where the layers of a component have their places, and what embeddings depend on."""

import pytest
import torch
from torch import nn

from serve_app.pipelines.addons.lora_file import Pair
from serve_app.pipelines.addons.lora_layers import LoraLayers
from serve_app.pipelines.addons.lora_set import Adapter, LoraSet, PackedPairs

WIDTHS = {"conv": 2, "ff": 4, "attn1.to_q": 8, "self_attn.q_proj": 16}
NOTHING = PackedPairs(torch.zeros(8, 1), torch.zeros(8, 1), (), {}, 0.0)


def component() -> nn.Module:
    """Layers that LoRAs change rarely, often and most often, in the order of a model's blocks."""
    layers = {
        "conv": nn.Conv2d(WIDTHS["conv"], 3, 3),
        "ff": nn.Linear(WIDTHS["ff"], 3),
        "block": nn.ModuleDict(
            {
                "attn1": nn.ModuleDict({"to_q": nn.Linear(WIDTHS["attn1.to_q"], 3)}),
                "self_attn": nn.ModuleDict({"q_proj": nn.Linear(WIDTHS["self_attn.q_proj"], 3)}),
            }
        ),
    }
    return nn.ModuleDict(layers)


@pytest.mark.parametrize(
    ("names", "inputs"),
    [
        pytest.param(["block.attn1.to_q"], 8, id="attention"),
        pytest.param(["block.attn1.to_q", "block.self_attn.q_proj"], 8 + 16, id="all-attention"),
        pytest.param(["ff"], 8 + 16 + 4, id="linear"),
        pytest.param(["conv"], 8 + 16 + 4 + 2 * 9, id="convolution"),
    ],
)
def test_matrices_end_with_the_last_layer_and_those_of_attention_are_first(
    names: list[str], inputs: int
) -> None:
    """Most LoRAs change attention alone: columns of all others would be memory for nothing."""
    module = component()
    weights = [module.get_submodule(name).weight for name in names]
    pairs = {
        name: Pair(torch.ones(2, *weight.shape[1:]), torch.ones(3, 2))
        for name, weight in zip(names, weights, strict=True)
    }
    assert LoraLayers("unet", module).packed(pairs).down.shape == (8, inputs)


def test_text_depends_on_adapters_that_change_any_text_encoder() -> None:
    parts = [("unet",), ("unet", "text_encoder"), ("text_encoder_2",)]
    uses = tuple(
        (Adapter("file", str(number), dict.fromkeys(names, NOTHING)), number / 10)
        for number, names in enumerate(parts)
    )
    assert LoraSet(1, uses).of_text == (("1", 0.1), ("2", 0.2))
