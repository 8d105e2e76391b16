"""What can be wrong with the file of a LoRA, and how it is told."""

import re
from collections.abc import Callable

import pytest
import torch

from serve_app import errors
from tests.engine.loras.strengths import MakeSpec, Tensors, using
from tests.engine.weaving import Weaver

UP = "lora_unet_mid_block_resnets_0_conv1.lora_up.weight"
DOWN = "lora_unet_mid_block_resnets_0_conv1.lora_down.weight"
TO_Q = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


def without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {key: own for key, own in tensors.items() if key != name}


def having(name: str, *shape: int, value: float = 0.0) -> Callable[[Tensors], Tensors]:
    return lambda tensors: tensors | {name: torch.full(shape, value)}


def renamed(old: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name.replace(old, new): own for name, own in tensors.items()}


def assert_refused(weaver: Weaver, make_spec: MakeSpec, reason: str) -> None:
    with pytest.raises(errors.AddOnMisfit) as caught:
        weaver.paint(make_spec(loras=using(("bad", 1))))
    text = caught.value.public_message
    assert caught.value.field == "lora_model"
    assert text.startswith("The LoRA bad does not fit this model: found ")
    assert re.search(reason, text), text
    assert "expected" in text
    assert not caught.value.retryable
