"""A ControlNet's settings are those of the UNet that it adds to, or it is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
from diffusers import ControlNetModel

from serve_app.models import ModelEntry
from serve_app.pipelines.addons.misfit import Unfit
from serve_app.pipelines.loader import load_checkpoint
from serve_app.testing.controlnets import write_random_controlnet
from serve_app.types import Kind
from tests.engine.weaving import CPU

OF_UNET = [
    "block_out_channels", "layers_per_block", "cross_attention_dim", "addition_embed_type",
    "addition_time_embed_dim", "projection_class_embeddings_input_dim", "class_embed_type",
    "in_channels", "conditioning_channels",
]  # fmt: skip


def test_net_of_another_form_than_the_model_is_refused(
    folder: Callable[[str], Path], tmp_path: Path
) -> None:
    entry = ModelEntry(id="m", source=folder("plain"), kinds=tuple(Kind), native_size_px=64)
    checkpoint = load_checkpoint(entry, CPU)
    write_random_controlnet(tmp_path / "net", checkpoint.base.unet)
    settings = ControlNetModel.load_config(tmp_path / "net")
    checkpoint.controlnets._check(settings)
    for name in OF_UNET:
        with pytest.raises(Unfit, match=f"found {name} other"):
            checkpoint.controlnets._check(settings | {name: "other"})
