"""LoRAs of XL, SD3 and Flux."""

from collections.abc import Callable, Iterator
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file

from serve_app.models import AddOn
from tests.engine.lora_files import kohya, make, save
from tests.engine.lora_files import peft as in_peft_names
from tests.engine.loras.harm import assert_refused, having
from tests.engine.loras.strengths import VISIBLE, MakeSpec, Tensors, plus, using
from tests.engine.test_families import make_flux, make_sd3
from tests.engine.weaving import TOLERANCE, Weaver, changed, difference, paint_stock

# peft warns of a second adapter, which is what is wanted.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute"),
    pytest.mark.usefixtures("lora_way"),
]


XL_LAYERS = {
    "unet": ("down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v",),
    "text_encoder": ("encoder.layers.0.self_attn.q_proj",),
    "text_encoder_2": ("text_model.encoder.layers.1.self_attn.v_proj", "text_projection"),
}
XL_NAMES = {
    "unet": "lora_unet_",
    "text_encoder": "lora_te1_text_model_",
    "text_encoder_2": "lora_te2_",
}


@pytest.mark.slow
def test_lora_of_both_text_encoders_acts_on_xl(
    xl: Path, tmp_path: Path, make_spec: MakeSpec
) -> None:
    base = diffusers.StableDiffusionXLPipeline.from_pretrained(xl)
    made = make(base, layers_of(base))
    file = save(kohya(made, XL_NAMES), tmp_path / "ink.safetensors")
    weaver = Weaver(xl, [AddOn(id="ink", type="lora", source=file)])
    spec = make_spec(loras=using(("ink", 1)))
    plain, woven = weaver.paint(make_spec(), spec)
    weaver.engine.close()
    assert difference(woven, paint_stock(changed(base, plus(made, 1)), spec)) <= TOLERANCE
    assert difference(woven, plain) > VISIBLE / 4


def layers_of(pipeline: DiffusionPipeline) -> dict[str, tuple[str, ...]]:
    """Name the layers as this version of transformers does."""
    names = dict(pipeline.text_encoder_2.named_modules())
    second = tuple(
        name if name in names else name.removeprefix("text_model.")
        for name in XL_LAYERS["text_encoder_2"]
    )
    return XL_LAYERS | {"text_encoder_2": second}


FLUX_LAYERS = {
    "transformer": ("transformer_blocks.0.attn.to_q", "single_transformer_blocks.0.proj_out"),
    "text_encoder": ("encoder.layers.0.self_attn.q_proj",),
}


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weaver]:
    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("flux")
    make_flux().save_pretrained(folder)
    weaver = Weaver(folder, [])
    yield weaver
    weaver.engine.close()


@pytest.mark.slow
def test_lora_of_flux_changes_its_layers_and_no_other(
    flux: Weaver, tmp_path: Path, make_spec: MakeSpec
) -> None:
    """`proj_out` is also the name of a layer beside the blocks."""
    base = diffusers.FluxPipeline(**flux.checkpoint.base.components)
    made = make(base, FLUX_LAYERS)
    file = save(in_peft_names(made), tmp_path / "ink.safetensors")
    flux.known.append(AddOn(id="ink", type="lora", source=file))
    expected = changed(base, plus(made, 1))
    spec = make_spec(loras=using(("ink", 1)), scheduler="FlowMatchEulerDiscreteScheduler")
    spec = spec.model_copy(update={"scheduler": "EulerDiscreteScheduler"})
    woven = flux.paint(spec)[0]
    flux.paint(spec.model_copy(update={"loras": ()}))  # others copy the layers, as they were made
    flux.known.pop()
    flow = spec.model_copy(update={"scheduler": "FlowMatchEulerDiscreteScheduler"})
    assert difference(woven, paint_stock(expected, flow)) <= TOLERANCE


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (having("transformer.transformer_blocks.0.attn.norm_q.weight", 16), "the tensor .*norm_q"),
        (having("lora_te3_encoder.lora_down.weight", 2, 32), "half a pair"),
    ],
    ids=["norms", "second-text-encoder"],
)
def test_what_would_stay_in_a_flux_model_or_be_dropped_is_refused(
    flux: Weaver,
    tmp_path: Path,
    harm: Callable[[Tensors], Tensors],
    reason: str,
    make_spec: MakeSpec,
) -> None:
    before = {
        name: one.clone() for name, one in flux.checkpoint.base.transformer.state_dict().items()
    }
    made = make(flux.checkpoint.base, {"transformer": ("context_embedder",)})
    file = save(harm(in_peft_names(made)), tmp_path / "bad.safetensors")
    flux.known.append(AddOn(id="bad", type="lora", source=file))
    assert_refused(flux, make_spec, reason)
    after = flux.checkpoint.base.transformer.state_dict()
    assert all(torch.equal(after[name], one) for name, one in before.items() if name in after)
    flux.known.pop()


def test_layers_that_a_converter_drops_are_missed(
    flux: Weaver, tmp_path: Path, make_spec: MakeSpec
) -> None:
    """diffusers leaves T5's out of kohya's files, and says so in its log only."""
    tensors = {
        f"{name}.{half}.weight": torch.ones(4, 32) if half == "lora_down" else torch.ones(32, 4)
        for name in (
            "lora_te1_text_model_encoder_layers_0_self_attn_q_proj",
            "text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q",
        )
        for half in ("lora_down", "lora_up")
    }
    file = save(tensors, tmp_path / "bad.safetensors")
    flux.known.append(AddOn(id="bad", type="lora", source=file))
    assert_refused(flux, make_spec, "layers that have no place in the model")
    flux.known.pop()


def test_kohya_names_of_sd3_that_no_layer_has_are_refused(
    tmp_path: Path, make_spec: MakeSpec
) -> None:
    """diffusers does not know them, and would paint without."""
    make_sd3().save_pretrained(tmp_path / "sd3")
    tensors = {
        f"lora_unet_joint_blocks_0_x_block_attn_ln_q.{half}.weight": torch.ones(4, 4)
        for half in ("lora_down", "lora_up")
    }
    file = save(tensors, tmp_path / "bad.safetensors")
    weaver = Weaver(tmp_path / "sd3", [AddOn(id="bad", type="lora", source=file)])
    assert_refused(weaver, make_spec, "joint_blocks")
    weaver.engine.close()
    assert load_file(file)
