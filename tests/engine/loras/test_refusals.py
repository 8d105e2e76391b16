"""LoRAs that do not fit, or whose settings cannot be honoured, are refused."""

import gc
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline

from serve_app.models import AddOn
from tests.engine.lora_files import LAYERS, kohya, make, save
from tests.engine.lora_files import peft as in_peft_names
from tests.engine.loras.harm import DOWN, TO_Q, UP, assert_refused, having, renamed, without
from tests.engine.loras.strengths import MakeSpec, Tensors, plus, using
from tests.engine.weaving import TOLERANCE, Weaver, changed, difference, paint_stock

# peft warns of a second adapter, which is what is wanted.
pytestmark = pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute")


HARM = [
    pytest.param(
        lambda _: {"a": torch.ones(2, 7)}, "found the tensor a, expected pairs", id="other"
    ),
    pytest.param(lambda _: {}, "found no tensors", id="empty"),
    pytest.param(without(UP), "half a pair of matrices for .*conv1", id="half"),
    pytest.param(
        having(DOWN, 4, 640, 3, 3), r"640, 3, 3\) at unet.mid.*conv1, expected", id="shape"
    ),
    pytest.param(having(UP, 32, 5, 1, 1), r"shapes \(4, .* and \(32, 5, 1, 1\)", id="ranks"),
    pytest.param(having(UP, 32, 4, 1, 1, value=torch.nan), "NaN or infinity in .*conv1", id="nan"),
    pytest.param(renamed("mid_block", "down_blocks_7"), "down_blocks.7.* expected", id="layer"),
    pytest.param(renamed("lora_te_", "lora_te2_"), "layers of a text_encoder_2", id="component"),
    pytest.param(
        renamed("lora_down", "hada_w1_a"), "found (hada_w1_a|two adapters) for lora_te", id="loha"
    ),
    pytest.param(
        having("lora_unet_conv_in.lokr_w1", 2, 2), "found lokr_w1 for lora_unet", id="lokr"
    ),
    pytest.param(having("lora_unet_conv_in.diff_b", 16), "the tensor .*diff_b", id="bias"),
    pytest.param(
        having(UP.replace("_up", "_mid"), 4, 4, 3, 3),
        "found a core without its halves",
        id="tucker",
    ),
    pytest.param(having("bundle_emb.x", 2, 32), "the tensor bundle_emb.x", id="bundle"),
    pytest.param(having("lora_unet_mid_block_resnets_0_conv1.alpha", 2), "alpha", id="alpha"),
    pytest.param(
        having("lora_unet_mid_block_resnets_0_conv1.dora_scale", 32, 1, 1, 1, value=1),
        "DoRA magnitudes for 1 layers, expected for all",
        id="part-of-a-dora",
    ),
    pytest.param(
        having("lora_unet_mid_block_resnets_0_conv1.dora_scale", 1, 32, 1, 1, value=1),
        "DoRA magnitudes of the inputs",
        id="dora-of-inputs",
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("harm", "reason"), HARM)
def test_lora_that_does_not_fit_is_an_error_of_its_field(
    weaver: Weaver,
    base: DiffusionPipeline,
    add: Callable[..., None],
    harm: Callable[[Tensors], Tensors],
    reason: str,
    make_spec: MakeSpec,
) -> None:
    good = kohya(make(base))
    add("good", good)
    add("bad", harm(good))
    assert_refused(weaver, make_spec, reason)
    spec = make_spec(loras=using(("good", 1)), steps=2)
    truth = paint_stock(changed(base, plus(make(base), 1)), spec)
    assert difference(weaver.paint(spec)[0], truth) <= TOLERANCE


SAID = [
    pytest.param({"unet.init_lora_weights": "pissa"}, "init_lora_weights: pissa", id="start"),
    pytest.param({"unet.peft_type": "LOKR"}, "peft_type: LOKR", id="type"),
    pytest.param({"unet.use_dora": True}, "a DoRA without magnitudes", id="dora"),
    pytest.param({"unet.lora_alpha": "much"}, "alpha of .* not a number", id="alpha"),
    pytest.param({"unet.alpha_pattern": {"(": 3}}, "alpha of .* not a number", id="pattern"),
    pytest.param({"unet.some_day": [1]}, "the setting some_day", id="later-peft"),
    pytest.param([1], "header .* cannot be read", id="no-object"),
]


@pytest.mark.parametrize(("said", "reason"), SAID)
def test_lora_whose_settings_cannot_be_honoured_is_refused(
    weaver: Weaver,
    base: DiffusionPipeline,
    add: Callable[..., None],
    said: object,
    reason: str,
    make_spec: MakeSpec,
) -> None:
    add("bad", in_peft_names(make(base)), lora_adapter_metadata=json.dumps(said))
    assert_refused(weaver, make_spec, reason)


def test_lora_that_tells_alpha_twice_is_refused(
    weaver: Weaver, base: DiffusionPipeline, add: Callable[..., None], make_spec: MakeSpec
) -> None:
    tensors = in_peft_names(make(base)) | {f"{TO_Q}.alpha": torch.tensor(4)}
    add("good", tensors)
    weaver.paint(make_spec(loras=using(("good", 1))))
    add("bad", tensors, lora_adapter_metadata=json.dumps({"unet.lora_alpha": 4}))
    assert_refused(weaver, make_spec, "alphas both as tensors and in the header")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"ss_base_model_version": "sdxl_base_v1-0"}, "a file for Stable Diffusion XL"),
        ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, "Stable Diffusion XL"),
        ({"ss_base_model_version": "sd_v1"}, None),
        ({"ss_base_model_version": "something new"}, None),
    ],
)
def test_text_encoder_lora_of_another_family_is_refused_by_its_header(
    weaver: Weaver,
    base: DiffusionPipeline,
    add: Callable[..., None],
    header: dict[str, str],
    reason: str | None,
    make_spec: MakeSpec,
) -> None:
    made = make(base, {"text_encoder": LAYERS["text_encoder"]})
    add("bad", kohya(made), **header)
    if reason is not None:
        assert_refused(weaver, make_spec, reason)
        return
    spec = make_spec(loras=using(("bad", 1)))
    truth = paint_stock(changed(base, plus(made, 1)), spec)
    assert difference(weaver.paint(spec)[0], truth) <= TOLERANCE


def test_lora_of_an_only_text_encoder_does_not_fit_xl(
    xl: Path, base: DiffusionPipeline, tmp_path: Path, make_spec: MakeSpec
) -> None:
    tensors = kohya(make(base, {"text_encoder": ("encoder.layers.0.self_attn.q_proj",)}))
    file = save(tensors, tmp_path / "ink.safetensors")
    weaver = Weaver(xl, [AddOn(id="bad", type="lora", source=file)])
    assert_refused(weaver, make_spec, "layers of a model's only text encoder")
    weaver.engine.close()


def test_refused_files_leave_no_locks_behind(
    weaver: Weaver, base: DiffusionPipeline, add: Callable[..., None], make_spec: MakeSpec
) -> None:
    add("bad", having(DOWN, 4, 640, 3, 3)(kohya(make(base))))
    assert_refused(weaver, make_spec, "640")
    gc.collect()
    assert dict(weaver.checkpoint.loras._turns) == {}
