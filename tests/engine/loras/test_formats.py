"""LoRAs and DoRAs: what trainers saw is what is painted.

The truth is the trainer's own model, stock diffusers, or the arithmetic of the format done here.
"""

from collections.abc import Callable
from pathlib import Path

import diffusers
import peft
import pytest
import torch
from diffusers import DiffusionPipeline

from serve_app.models import AddOn
from serve_app.pipelines.addons import lora_file, lora_layers
from serve_app.pipelines.addons.lora_set import Adapter, LoraSet
from tests.engine.lora_files import Made, kohya, kohya_name, make
from tests.engine.lora_files import peft as in_peft_names
from tests.engine.loras.strengths import VISIBLE, MakeSpec, Tensors, plus, stock_of, using
from tests.engine.weaving import TOLERANCE, Weaver, changed, difference, paint_stock

# peft warns of a second adapter, which is what is wanted.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute"),
    pytest.mark.usefixtures("lora_way"),
]


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


@pytest.mark.slow
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


@pytest.mark.slow
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
