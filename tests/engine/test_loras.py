"""LoRAs and DoRAs: what trainers saw is what is painted, and what cannot be is refused.

The truth is the trainer's own model, stock diffusers, or the arithmetic of the format done here.
"""

import asyncio
import gc
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import diffusers
import peft
import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file

from serve_app import errors
from serve_app.config import EngineConfig
from serve_app.models import AddOn, ModelEntry
from serve_app.pipelines.addons import lora_file, lora_layers, loras
from serve_app.pipelines.addons.lookup import AddOns
from serve_app.pipelines.addons.lora_set import Adapter, LoraSet
from serve_app.pipelines.loader import load_checkpoint
from serve_app.pipelines.painter import WeavePainter
from serve_app.testing.ip_adapters import write_random_ip_adapter
from serve_app.types import GenerationSpec, IpAdapterUse, Kind, LoraUse
from tests.engine.lora_files import LAYERS, Made, kohya, kohya_name, make, save
from tests.engine.lora_files import peft as in_peft_names
from tests.engine.test_families import make_flux, make_sd3, make_xl
from tests.engine.weaving import CPU, TOLERANCE, Weaver, changed, difference, paint_stock

# peft warns of a second adapter, which is what is wanted.
pytestmark = pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute")

MakeSpec = Callable[..., GenerationSpec]
Tensors = dict[str, torch.Tensor]
VISIBLE = 0.02  # more than any difference that is allowed: the add-on does something


@pytest.fixture(scope="module")
def base(folder: Callable[[str], Path]) -> DiffusionPipeline:
    return stock_of(folder("attention"))


def stock_of(folder: Path) -> DiffusionPipeline:
    return diffusers.StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)


@pytest.fixture(scope="module")
def weaver(folder: Callable[[str], Path]) -> Iterator[Weaver]:
    weaver = Weaver(folder("attention"), [])
    yield weaver
    weaver.engine.close()


@pytest.fixture
def known(weaver: Weaver) -> Iterator[list[AddOn]]:
    weaver.known.clear()
    yield weaver.known
    weaver.known.clear()


@pytest.fixture
def add(known: list[AddOn], tmp_path: Path) -> Callable[..., None]:
    """Add a LoRA to the catalogue by its tensors and header."""

    def add(name: str, tensors: Tensors, **header: str) -> None:
        file = save(tensors, tmp_path / f"{name}.safetensors", **header)
        known.append(AddOn(id=name, type="lora", source=file))

    return add


def using(*uses: tuple[str, float]) -> tuple[LoraUse, ...]:
    return tuple(LoraUse(id=name, strength=strength) for name, strength in uses)


def plus(made: Made, factor: float) -> Mapping[tuple[str, str], Callable[..., torch.Tensor]]:
    """W + factor * up @ down."""
    return {
        key: lambda weight, own=own: weight + factor * own.product() for key, own in made.items()
    }


TRAINED = [
    pytest.param({"lora_alpha": 16}, {"lora_alpha": 2}, id="alpha"),
    pytest.param({"lora_alpha": 2, "use_rslora": True}, {}, id="rslora"),
    pytest.param(
        {
            "lora_alpha": 8,
            "rank_pattern": {"attn2.to_q": 2},
            "alpha_pattern": {"attn1.to_v": 1, "attn2.to_q": 3},
        },
        {"rank_pattern": {"q_proj": 3}, "alpha_pattern": {"layers.0.self_attn.q_proj": 12}},
        id="patterns",
    ),
]


@pytest.mark.parametrize(("of_unet", "of_text_encoder"), TRAINED)
def test_lora_of_diffusers_trainers_acts_as_in_training(
    weaver: Weaver,
    known: list[AddOn],
    folder: Callable[[str], Path],
    tmp_path: Path,
    of_unet: dict[str, object],
    of_text_encoder: dict[str, object],
    make_spec: MakeSpec,
) -> None:
    trained = stock_of(folder("attention"))
    said = train(trained, tmp_path, of_unet, of_text_encoder)
    known.append(AddOn(id="ink", type="lora", source=said))
    spec = make_spec(loras=using(("ink", 1)))
    plain, woven = weaver.paint(make_spec(), spec)
    assert difference(woven, paint_stock(trained, spec)) <= TOLERANCE
    loaded = stock_of(folder("attention"))
    loaded.load_lora_weights(said)
    assert difference(woven, paint_stock(loaded, spec)) <= TOLERANCE
    assert difference(woven, plain) > VISIBLE


def train(
    pipeline: DiffusionPipeline,
    target: Path,
    of_unet: dict[str, object],
    of_text_encoder: dict[str, object],
) -> Path:
    """Write the file of a training as diffusers' trainers do, leaving the adapters active."""
    torch.manual_seed(3)
    layers, said = {}, {}
    for name, targets, settings in (
        ("unet", ["to_q", "to_v"], of_unet),
        ("text_encoder", ["q_proj", "v_proj"], of_text_encoder),
    ):
        part = getattr(pipeline, name)
        options = {"r": 4, "target_modules": targets, "init_lora_weights": False} | settings
        part.add_adapter(peft.LoraConfig(**options))
        state = peft.get_peft_model_state_dict(part)
        layers[f"{name}_lora_layers"] = diffusers.utils.convert_state_dict_to_diffusers(state)
        config = part.peft_config["default"].to_dict()
        config["target_modules"] = sorted(config["target_modules"])
        said[f"{name}_lora_adapter_metadata"] = config
    type(pipeline).save_lora_weights(target, **layers, **said)
    return target / "pytorch_lora_weights.safetensors"


def test_alphas_of_kohya_scale_each_layer_by_its_own(
    weaver: Weaver, base: DiffusionPipeline, add: Callable[..., None], make_spec: MakeSpec
) -> None:
    made = make(base, ranks=(4, 2, 8))
    alphas = dict(zip(made, (1.0, 8.0, 4.0, 2.0) * 3, strict=False))
    tensors = {f"{kohya_name(key)}.alpha": torch.tensor(alpha) for key, alpha in alphas.items()}
    add("ink", kohya(made) | tensors)
    spec = make_spec(loras=using(("ink", 0.7)))
    expected = changed(
        base,
        {
            key: lambda weight, own=own, alpha=alphas[key]: (
                weight + 0.7 * alpha / own.rank * own.product()
            )
            for key, own in made.items()
        },
    )
    plain, woven = weaver.paint(make_spec(), spec)
    assert difference(woven, paint_stock(expected, spec)) <= TOLERANCE
    assert difference(woven, plain) > VISIBLE


@pytest.mark.parametrize("names", [kohya, in_peft_names])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_lora_without_alpha_is_added_as_it_is(
    weaver: Weaver,
    base: DiffusionPipeline,
    add: Callable[..., None],
    names: Callable[[Made], Tensors],
    dtype: torch.dtype,
    make_spec: MakeSpec,
) -> None:
    made = make(base, ranks=(4, 3))
    add("ink", {name: tensor.to(dtype) for name, tensor in names(made).items()})
    rounded = {key: type(own)(own.down.to(dtype).float(), own.up.to(dtype).float(), own.magnitude)
               for key, own in made.items()}  # fmt: skip
    spec = make_spec(loras=using(("ink", -0.5)))
    expected = changed(base, plus(rounded, -0.5))
    assert difference(weaver.paint(spec)[0], paint_stock(expected, spec)) <= TOLERANCE


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_small_factors_cost_half_precision_no_bits(dtype: torch.dtype) -> None:
    """alpha / rank of 1 / 128 and a weak strength, with matrices as trainers leave them."""
    random = torch.Generator().manual_seed(1)
    module = torch.nn.Sequential(torch.nn.Linear(64, 48)).to(dtype)
    layers = lora_layers.LoraLayers("unet", module)
    down = torch.randn(16, 64, generator=random) * 0.1
    up = torch.randn(48, 16, generator=random) * 0.002 / 128
    packed = layers.packed({"0": lora_file.Pair(down, up)})
    layers.apply((LoraSet(1, ((Adapter("a", "a", {"unet": packed}), 0.1),)),))
    x = (1000 * torch.randn(32, 64, generator=random)).to(dtype)  # else the result has few bits
    with torch.no_grad():
        module[0].weight.zero_()
        module[0].bias.zero_()
        found = module(x).float()
    expected = 0.1 * x.float() @ down.T @ up.T
    error = (found - expected).norm() / expected.norm()
    assert error < {torch.float16: 0.001, torch.bfloat16: 0.008}[dtype]


def test_strengths_that_cancel_are_nothing(
    weaver: Weaver, base: DiffusionPipeline, add: Callable[..., None], make_spec: MakeSpec
) -> None:
    """A DoRA of strength 5e-17 would still set the lengths of all rows."""
    add("dora", in_peft_names(make(base), is_dora=True))
    spec = make_spec(loras=using(("dora", 0.1), ("dora", 0.2), ("dora", -0.3)))
    assert difference(weaver.paint(spec)[0], paint_stock(base, spec)) <= TOLERANCE


def test_strengths_hold_no_matrices_of_their_own(
    weaver: Weaver, base: DiffusionPipeline, add: Callable[..., None], make_spec: MakeSpec
) -> None:
    add("ink", kohya(make(base)))
    specs = [make_spec(loras=using(("ink", 1 + number / 100))) for number in range(20)]
    sets = [weaver.request(spec).body.loras for spec in specs]
    assert len({own.number for own in sets}) == 20
    assert len({id(own.uses[0][0]) for own in sets}) == 1
    assert all(own.gains == {} for own in sets)


def test_refused_files_leave_no_locks_behind(
    weaver: Weaver, base: DiffusionPipeline, add: Callable[..., None], make_spec: MakeSpec
) -> None:
    add("bad", having(DOWN, 4, 640, 3, 3)(kohya(make(base))))
    assert_refused(weaver, make_spec, "640")
    gc.collect()
    assert dict(weaver.checkpoint.loras._turns) == {}


def test_lora_named_twice_acts_with_the_sum_of_its_strengths(
    weaver: Weaver, base: DiffusionPipeline, add: Callable[..., None], make_spec: MakeSpec
) -> None:
    made = make(base)
    add("ink", kohya(made))
    specs = [
        make_spec(loras=using(("ink", 0.5), ("ink", 0.25))),
        make_spec(loras=using(("ink", 0.5), ("ink", -0.5))),
        make_spec(loras=using(("ink", 0))),
    ]
    woven, *none = weaver.paint(*specs)
    expected = paint_stock(changed(base, plus(made, 0.75)), specs[0])
    assert difference(woven, expected) <= TOLERANCE
    for picture in none:
        assert difference(picture, paint_stock(base, specs[1])) <= TOLERANCE


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("xl")
    make_xl().save_pretrained(folder)
    return folder


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


# DoRA


@pytest.mark.parametrize("strength", [1, 0.5, -1])
def test_dora_equals_its_arithmetic(
    weaver: Weaver,
    base: DiffusionPipeline,
    add: Callable[..., None],
    strength: float,
    make_spec: MakeSpec,
) -> None:
    made, factor = make(base, ranks=(4, 2)), strength
    scales = {
        f"{kohya_name(key)}.dora_scale": own.magnitude.view(-1, *[1] * (own.down.ndim - 1))
        for key, own in made.items()
    }
    add("peft", in_peft_names(made, is_dora=True))
    add("kohya", kohya(made) | scales)
    expected = changed(
        base,
        {key: lambda weight, own=own: own.decomposed(weight, factor) for key, own in made.items()},
    )
    specs = [make_spec(loras=using((name, strength))) for name in ("peft", "kohya")]
    *doras, plain = weaver.paint(*specs, make_spec())
    truth = paint_stock(expected, specs[0])
    for picture in doras:
        assert difference(picture, truth) <= TOLERANCE
    assert difference(plain, paint_stock(base, make_spec())) <= TOLERANCE
    assert difference(plain, truth) > VISIBLE
    lora = changed(base, plus(made, strength))
    assert difference(paint_stock(lora, specs[0]), truth) > VISIBLE, "it is no plain LoRA"


def test_dora_is_applied_before_loras_whatever_their_names(
    weaver: Weaver, base: DiffusionPipeline, add: Callable[..., None], make_spec: MakeSpec
) -> None:
    dora, lora = make(base, seed=1), make(base, seed=2)
    add("b", in_peft_names(dora, is_dora=True))
    for name in ("a", "c"):
        add(name, kohya(lora))
    decomposed = {key: own.decomposed for key, own in dora.items()}
    expected = changed(changed(base, decomposed), plus(lora, 0.5))
    specs = [make_spec(loras=using((name, 0.5), ("b", 1))) for name in ("a", "c")]
    for picture in weaver.paint(*specs):
        assert difference(picture, paint_stock(expected, specs[0])) <= TOLERANCE


def test_two_doras_at_once_are_refused(
    weaver: Weaver, base: DiffusionPipeline, add: Callable[..., None], make_spec: MakeSpec
) -> None:
    for name in ("one", "two"):
        add(name, in_peft_names(make(base), is_dora=True))
    with pytest.raises(
        errors.InvalidRequest, match="Only one DoRA can be used at a time: one, two"
    ) as caught:
        weaver.paint(make_spec(loras=using(("one", 1), ("two", 1))))
    assert caught.value.field == "lora_model"
    weaver.paint(make_spec(loras=using(("one", 1), ("two", 0))))


# Refusals

UP = "lora_unet_mid_block_resnets_0_conv1.lora_up.weight"
DOWN = "lora_unet_mid_block_resnets_0_conv1.lora_down.weight"
TO_Q = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


def without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {key: own for key, own in tensors.items() if key != name}


def having(name: str, *shape: int, value: float = 0.0) -> Callable[[Tensors], Tensors]:
    return lambda tensors: tensors | {name: torch.full(shape, value)}


def renamed(old: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name.replace(old, new): own for name, own in tensors.items()}


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
    pytest.param(renamed("lora_down", "hada_w1_a"), "found hada_w1_a for lora_te", id="loha"),
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
    spec = make_spec(loras=using(("good", 1)), steps=1)
    truth = paint_stock(changed(base, plus(make(base), 1)), spec)
    assert difference(weaver.paint(spec)[0], truth) <= TOLERANCE


def assert_refused(weaver: Weaver, make_spec: MakeSpec, reason: str) -> None:
    with pytest.raises(errors.AddOnMisfit) as caught:
        weaver.paint(make_spec(loras=using(("bad", 1))))
    text = caught.value.public_message
    assert caught.value.field == "lora_model"
    assert text.startswith("The LoRA bad does not fit this model: found ")
    assert re.search(reason, text), text
    assert "expected" in text
    assert not caught.value.retryable


SAID = [
    pytest.param({"unet.init_lora_weights": "pissa"}, "init_lora_weights: pissa", id="start"),
    pytest.param({"unet.peft_type": "LOKR"}, "peft_type: LOKR", id="type"),
    pytest.param({"unet.use_dora": True}, "a DoRA without magnitudes", id="dora"),
    pytest.param({"unet.lora_alpha": "much"}, "alpha of .* no number", id="alpha"),
    pytest.param({"unet.alpha_pattern": {"(": 3}}, "alpha of .* no number", id="pattern"),
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


# History


def test_good_bad_good_again_leaves_no_trace(
    weaver: Weaver, base: DiffusionPipeline, add: Callable[..., None], make_spec: MakeSpec
) -> None:
    """Each with its neighbours, and a DoRA in between."""
    good, other = make(base, seed=1), make(base, seed=2)
    add("good", kohya(good))
    add("dora", in_peft_names(other, is_dora=True))
    add("bad", having(DOWN, 4, 640, 3, 3)(kohya(other)))
    specs = {
        name: make_spec(loras=using((name, 1)) if name else ()) for name in ("good", "dora", "")
    }
    inked = {
        "good": changed(base, plus(good, 1)),
        "dora": changed(base, {key: own.decomposed for key, own in other.items()}),
        "": base,
    }
    truths = {name: paint_stock(inked[name], spec) for name, spec in specs.items()}
    order = ["good", "bad", "good", "", "bad", "dora", "bad", "", "dora", "good", "bad", ""]
    for name in order:
        if name == "bad":
            assert_refused(weaver, make_spec, "640")
        else:
            assert difference(weaver.paint(specs[name])[0], truths[name]) <= TOLERANCE, name


@pytest.mark.parametrize(
    ("error", "meant"),
    [
        (RuntimeError("/srv/x"), errors.AddOnMisfit),
        (torch.OutOfMemoryError("/srv/x"), errors.OutOfMemory),
    ],
    ids=["library", "memory"],
)
@pytest.mark.parametrize("step", ["to", "packed"])
def test_lora_that_cannot_be_placed_fails_its_own_request(
    weaver: Weaver,
    base: DiffusionPipeline,
    add: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    error: Exception,
    meant: type[errors.DreamserveError],
    make_spec: MakeSpec,
) -> None:
    good, late = make(base, seed=1), make(base, seed=2)
    add("good", kohya(good))
    add("late", kohya(late))
    specs = {name: make_spec(loras=using((name, 1))) for name in ("good", "late")}
    before = weaver.paint(specs["good"])[0]

    def fail(*_: object) -> object:
        raise error

    owner = {"to": Adapter, "packed": lora_layers.LoraLayers}[step]
    with monkeypatch.context() as patch:
        patch.setattr(owner, step, fail)
        for _ in range(2):
            with pytest.raises(meant) as caught:
                weaver.request(specs["late"])
            assert "/srv" not in caught.value.public_message
    truth = paint_stock(changed(base, plus(late, 1)), specs["late"])
    assert difference(weaver.paint(specs["late"])[0], truth) <= TOLERANCE
    assert torch.equal(weaver.paint(specs["good"])[0], before)


def test_lora_that_left_leaves_nothing(
    folder: Callable[[str], Path], base: DiffusionPipeline, tmp_path: Path, make_spec: MakeSpec
) -> None:
    add_ons = [
        AddOn(id=name, type="lora", source=save(kohya(make(base, seed=seed)), tmp_path / name))
        for seed, name in enumerate(("a.safetensors", "b.safetensors"))
    ]
    none = {"lora_bytes": 0, "lora_host_bytes": 0, "lora_batch_bytes": 1}
    weaver = Weaver(folder("attention"), add_ons, stingy(none))
    for add_on in add_ons * 2:
        weaver.paint(make_spec(loras=using((add_on.id, 1))))
    weaver.paint(make_spec())
    weaver.engine.close()
    gc.collect()
    held = [own for own in gc.get_objects() if type(own) is Adapter]  # asks no lazy module
    places = {str(tmp_path / add_on.path.name) for add_on in add_ons}
    own = [one for one in held if any(place in one.key for place in places)]
    # The latest is kept on the device, the one before it in CPU memory.
    assert sorted(one.name for one in own) == ["lora_0", "lora_1"]
    assert not any("forward" in vars(own) for own in weaver.checkpoint.base.unet.modules())


def test_lora_that_left_the_device_comes_back_from_cpu_memory(
    folder: Callable[[str], Path],
    base: DiffusionPipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_spec: MakeSpec,
) -> None:
    read: list[Path] = []
    monkeypatch.setattr(loras, "load_file", lambda file: read.append(file) or load_file(file))
    made = {name: make(base, seed=seed) for seed, name in enumerate("ab")}
    add_ons = [
        AddOn(id=name, type="lora", source=save(kohya(own), tmp_path / f"{name}.safetensors"))
        for name, own in made.items()
    ]
    weaver = Weaver(folder("attention"), add_ons, stingy({"lora_bytes": 0}))
    for name in "abab":
        spec = make_spec(loras=using((name, 1)))
        truth = paint_stock(changed(base, plus(made[name], 1)), spec)
        assert difference(weaver.paint(spec)[0], truth) <= TOLERANCE
    weaver.engine.close()
    assert [file.stem for file in read] == ["a", "b"]


def test_prefetched_lora_is_not_read_again(
    folder: Callable[[str], Path],
    base: DiffusionPipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_spec: MakeSpec,
) -> None:
    made = make(base)
    files = {
        "ink": save(kohya(made), tmp_path / "ink.safetensors"),
        "bad": save({"a": torch.ones(2, 7)}, tmp_path / "bad.safetensors"),
    }
    known = {name: AddOn(id=name, type="lora", source=file) for name, file in files.items()}
    entry = ModelEntry(id="random", source=folder("attention"), kinds=tuple(Kind))
    add_ons = AddOns("random", lambda name, _type: known.get(name))
    painter = WeavePainter(entry, CPU, load_checkpoint(entry, CPU), add_ons)
    ink, bad, none = (make_spec(loras=using((name, 1))) for name in ("ink", "bad", "none"))

    async def prefetch_and_paint() -> None:
        for spec in (ink, bad, none):
            painter.prefetch(spec)  # what is wrong is for the paint to say
        while painter._num_hints:  # a thread ends it
            await asyncio.sleep(0.01)
        monkeypatch.delattr(loras, "load_file")
        await painter.paint(1, ink, None)
        with pytest.raises(errors.InvalidRequest, match="none"):
            await painter.paint(2, none, None)

    asyncio.run(prefetch_and_paint())
    painter.close()


def stingy(changes: Mapping[str, int]) -> EngineConfig:
    return CPU.model_copy(update=dict(changes))


def test_file_that_changes_in_place_does_not_change_what_was_read(
    weaver: Weaver, base: DiffusionPipeline, add: Callable[..., None], make_spec: MakeSpec
) -> None:
    made = make(base)
    add("ink", kohya(made))
    spec = make_spec(loras=using(("ink", 1)))
    request = weaver.request(spec)
    file = weaver.known[-1].path
    with file.open("r+b") as opened:  # the same file, which may be mapped
        opened.seek(-4096, 2)
        opened.write(b"\0" * 4096)
    picture = weaver.engine.submit(request).result(60).image
    assert difference(picture, paint_stock(changed(base, plus(made, 1)), spec)) <= TOLERANCE


def test_files_are_read_without_a_walk_through_modules_at_work(
    weaver: Weaver,
    base: DiffusionPipeline,
    add: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_spec: MakeSpec,
) -> None:
    """The engine may be wrapping their layers, and a walk would end in an error."""
    add("ink", kohya(make(base)))
    save({"a": torch.ones(1, 32)}, tmp_path / "sun.safetensors")
    weaver.known.append(AddOn(id="sun", type="embedding", source=tmp_path / "sun.safetensors"))
    write_random_ip_adapter(tmp_path / "look", base.unet)
    weaver.known.append(AddOn(id="look", type="ip_adapter", source=tmp_path / "look"))

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("dictionary changed size during iteration")

    checkpoint = weaver.checkpoint
    for module in (checkpoint.base.unet, checkpoint.base.text_encoder):
        for walk in ("named_modules", "named_parameters", "parameters", "modules", "children"):
            monkeypatch.setattr(module, walk, fail)
    adapter = IpAdapterUse(id="look", scale=1)
    weaver.request(make_spec(loras=using(("ink", 1)), embeddings=("sun",), ip_adapter=adapter))


# Other families

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


def test_kohya_names_of_sd3_are_refused(tmp_path: Path, make_spec: MakeSpec) -> None:
    """diffusers does not know them, and would paint without."""
    make_sd3().save_pretrained(tmp_path / "sd3")
    tensors = {
        f"lora_unet_joint_blocks_0_x_block_attn_proj.{half}.weight": torch.ones(4, 4)
        for half in ("lora_down", "lora_up")
    }
    file = save(tensors, tmp_path / "bad.safetensors")
    weaver = Weaver(tmp_path / "sd3", [AddOn(id="bad", type="lora", source=file)])
    assert_refused(weaver, make_spec, "joint_blocks")
    weaver.engine.close()
    assert load_file(file)


def test_downloads_of_others_hold_up_nobody_who_has_all_he_names(
    folder: Callable[[str], Path], base: DiffusionPipeline, tmp_path: Path, make_spec: MakeSpec
) -> None:
    """Four jobs wait for an add-on, each with a prefetch before it."""
    file = save(kohya(make(base)), tmp_path / "ink.safetensors")
    known = {"ink": AddOn(id="ink", type="lora", source=file)}
    go = threading.Event()

    def find(name: str, _type: str) -> AddOn | None:
        if name == "slow":
            go.wait(60)
        return known.get(name)

    entry = ModelEntry(id="random", source=folder("attention"), kinds=tuple(Kind))
    painter = WeavePainter(entry, CPU, load_checkpoint(entry, CPU), AddOns("random", find))
    ink, slow = (make_spec(loras=using((name, 1)), steps=2) for name in ("ink", "slow"))

    async def paint_beside() -> None:
        for _ in range(4):
            painter.prefetch(slow)
        waiting = [asyncio.create_task(painter.paint(number, slow, None)) for number in range(4)]
        await asyncio.sleep(0.1)
        await asyncio.wait_for(painter.paint(9, ink, None), 30)
        assert not any(task.done() for task in waiting)
        go.set()
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(one, errors.InvalidRequest) for one in ended)

    asyncio.run(paint_beside())
    painter.close()
