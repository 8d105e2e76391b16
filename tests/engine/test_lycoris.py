"""LoHas, LoKrs and LoCons with a core: what their formats say is what is painted.

The truth is written from the definitions: dense weights, added to those of stock diffusers.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers import DiffusionPipeline

from serve_app import errors
from serve_app.models import AddOn
from serve_app.pipelines.addons.lora_file import read_pairs
from serve_app.pipelines.addons.lycoris import in_pairs
from serve_app.pipelines.addons.misfit import Unfit
from serve_app.types import GenerationSpec, LoraUse
from tests.engine.lora_files import LAYERS, kohya_name, save
from tests.engine.test_families import make_xl
from tests.engine.weaving import TOLERANCE, Weaver, changed, difference, paint_stock

MakeSpec = Callable[..., GenerationSpec]
Tensors = dict[str, torch.Tensor]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Made:
    """Tensors of one layer by their kinds, and what they add to its weights."""

    tensors: Tensors
    delta: torch.Tensor


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape) * 0.3


def tucker(core: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Sum core[i, j] * a[i, out] * b[j, in] over i and j."""
    return torch.einsum("ijkl,ip,jr->prkl", core, a, b)


def loha(shape: Shape, rank: int = 3, alpha: float | None = 2.0) -> Made:
    out, flat = shape[0], torch.Size(shape[1:]).numel()
    own = {"hada_w1_a": draw(out, rank), "hada_w1_b": draw(rank, flat)}
    own |= {"hada_w2_a": draw(out, rank), "hada_w2_b": draw(rank, flat)}
    delta = (own["hada_w1_a"] @ own["hada_w1_b"]) * (own["hada_w2_a"] @ own["hada_w2_b"])
    return scaled(own, delta.reshape(shape), alpha, rank)


def loha_with_cores(shape: Shape, rank: int = 3, alpha: float | None = 2.0) -> Made:
    out, inner, *kernel = shape
    own = {}
    for number in (1, 2):
        own[f"hada_t{number}"] = draw(rank, rank, *kernel)
        own[f"hada_w{number}_a"] = draw(rank, out)
        own[f"hada_w{number}_b"] = draw(rank, inner)
    one, other = (
        tucker(own[f"hada_t{n}"], own[f"hada_w{n}_a"], own[f"hada_w{n}_b"]) for n in (1, 2)
    )
    return scaled(own, one * other, alpha, rank)


def lokr(
    shape: Shape,
    factor: int = 4,
    first: int | None = None,
    second: int | None = 3,
    has_core: bool = False,
    alpha: float | None = 2.0,
) -> Made:
    """The ranks of the two matrices, of which the first is square; None: whole."""
    out, inner, *kernel = shape[0] // factor, shape[1] // factor, *shape[2:]
    own = {}
    if first is None:
        w1 = own["lokr_w1"] = draw(factor, factor)
    else:
        own |= {"lokr_w1_a": draw(factor, first), "lokr_w1_b": draw(first, factor)}
        w1 = own["lokr_w1_a"] @ own["lokr_w1_b"]
    if second is None:
        w2 = own["lokr_w2"] = draw(out, inner, *kernel)
    elif has_core:
        own["lokr_t2"] = draw(second, second, *kernel)
        own |= {"lokr_w2_a": draw(second, out), "lokr_w2_b": draw(second, inner)}
        w2 = tucker(own["lokr_t2"], own["lokr_w2_a"], own["lokr_w2_b"])
    else:
        flat = inner * torch.Size(kernel).numel()
        own |= {"lokr_w2_a": draw(out, second), "lokr_w2_b": draw(second, flat)}
        w2 = (own["lokr_w2_a"] @ own["lokr_w2_b"]).reshape(out, inner, *kernel)
    delta = torch.zeros(shape)  # block by block, as kron is defined
    for row in range(factor):
        for column in range(factor):
            rows, columns = (
                slice(row * out, (row + 1) * out),
                slice(column * inner, (column + 1) * inner),
            )
            delta[rows, columns] = w1[row, column] * w2
    is_whole = first is None and second is None
    return scaled(own, delta, alpha, None if is_whole else second or first)


def scaled(own: Tensors, delta: torch.Tensor, alpha: float | None, rank: int | None) -> Made:
    """alpha / rank; a LoKr of two whole matrices has the scale 1, whatever it says."""
    if alpha is None:
        return Made(own, delta)
    return Made(own | {"alpha": torch.tensor(alpha)}, delta * (alpha / rank if rank else 1))


LINEAR, CONV, POINT = (16, 24), (16, 24, 3, 3), (16, 24, 1, 1)
FORMS: Mapping[str, Callable[[], Made]] = {
    "loha": lambda: loha(LINEAR),
    "loha-no-alpha": lambda: loha(LINEAR, alpha=None),
    "loha-high-rank": lambda: loha(LINEAR, rank=8),
    "loha-conv": lambda: loha(CONV),
    "loha-point": lambda: loha(POINT),
    "loha-tall": lambda: loha((64, 2, 3, 3), rank=6),
    "loha-core": lambda: loha_with_cores(CONV),
    "lokr-whole": lambda: lokr(LINEAR, second=None),
    "lokr": lambda: lokr(LINEAR),
    "lokr-no-alpha": lambda: lokr(LINEAR, alpha=None),
    "lokr-both": lambda: lokr(LINEAR, first=2, second=2),
    "lokr-first": lambda: lokr(LINEAR, first=2, second=None),
    "lokr-conv": lambda: lokr(CONV),
    "lokr-conv-whole": lambda: lokr(CONV, second=None),
    "lokr-conv-tall": lambda: lokr((64, 4, 3, 3), factor=2, second=None),
    "lokr-point": lambda: lokr(POINT, second=None),
    "lokr-core": lambda: lokr(CONV, has_core=True),
}


@pytest.mark.parametrize("form", FORMS)
def test_pair_adds_what_the_format_says(form: str) -> None:
    torch.manual_seed(4)
    made = FORMS[form]()
    name = "lora_unet_down_blocks_0_attentions_0_proj_in"
    tensors = {f"{name}.{kind}": tensor for kind, tensor in made.tensors.items()}
    found = read_pairs(tensors, {}, as_kohya)
    pair = found["unet"]["layer"].for_weights(tuple(made.delta.shape))
    product = torch.einsum("or...,rn...->on...", pair.up.flatten(1), pair.down)
    assert product.shape == made.delta.shape
    assert float((product - made.delta).abs().max()) <= 1e-5 * float(made.delta.abs().max())
    assert pair.up.shape[1] <= min(made.delta.shape[0], made.delta[0].numel())


def as_kohya(tensors: Tensors) -> Tensors:
    halves = {"down": "lora_A", "up": "lora_B"}
    return {
        f"unet.layer.{halves[name.split('lora_')[-1].split('.')[0]]}.weight": tensor
        for name, tensor in tensors.items()
        if not name.endswith(".alpha")
    }


def test_core_of_a_locon_goes_into_its_lower_half() -> None:
    torch.manual_seed(4)
    up, core, down = draw(16, 3, 1, 1), draw(3, 3, 3, 3), draw(3, 24, 1, 1)
    names = {"lora_up": up, "lora_mid": core, "lora_down": down}
    pair = in_pairs({f"x.{name}.weight": tensor for name, tensor in names.items()})
    product = torch.einsum("orij,rnkl->onkl", pair["x.lora_up.weight"], pair["x.lora_down.weight"])
    wanted = tucker(core, up[:, :, 0, 0].T, down[:, :, 0, 0])
    assert torch.allclose(product, wanted, atol=1e-6)


# -- Painted --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(folder: Callable[[str], Path]) -> DiffusionPipeline:
    return diffusers.StableDiffusionPipeline.from_pretrained(
        folder("attention"), safety_checker=None
    )


@pytest.fixture(scope="module")
def weaver(folder: Callable[[str], Path]) -> Iterator[Weaver]:
    weaver = Weaver(folder("attention"), [])
    yield weaver
    weaver.engine.close()


def of_each_form(shape: Shape, number: int) -> Made:
    """Make the forms take turns; those with a core are for kernels alone."""
    forms: list[Callable[[], Made]] = [
        lambda: loha(shape),
        lambda: lokr(shape),
        lambda: lokr(shape, second=None),
        lambda: lokr(shape, first=2, second=2),
    ]
    if shape[2:] == (3, 3):
        forms = [lambda: loha_with_cores(shape), lambda: lokr(shape, has_core=True), *forms]
    return forms[number % len(forms)]()


def make(
    pipeline: DiffusionPipeline, layers: Mapping[str, tuple[str, ...]]
) -> dict[tuple[str, str], Made]:
    torch.manual_seed(6)
    made = {}
    for component, names in layers.items():
        for name in names:
            shape = tuple(getattr(pipeline, component).get_submodule(name).weight.shape)
            made[component, name] = of_each_form(shape, len(made))
    return made


def plus(
    made: Mapping[tuple[str, str], Made], strength: float
) -> dict[tuple[str, str], Callable[..., torch.Tensor]]:
    return {key: lambda weight, own=own: weight + strength * own.delta for key, own in made.items()}


@pytest.mark.usefixtures("lora_way")
def test_lycoris_equals_stock_with_the_sums_in_its_weights(
    weaver: Weaver, base: DiffusionPipeline, tmp_path: Path, make_spec: MakeSpec
) -> None:
    convs = ("mid_block.resnets.1.conv1", "mid_block.resnets.1.conv2", "conv_in")
    layers = dict(LAYERS) | {"unet": (*convs, *LAYERS["unet"])}
    made = make(base, layers)
    tensors = {
        f"{kohya_name(layer)}.{kind}": tensor
        for layer, own in made.items()
        for kind, tensor in own.tensors.items()
    }
    file = save(tensors, tmp_path / "ink.safetensors")
    weaver.known[:] = [AddOn(id="ink", type="lora", source=file)]
    plain = weaver.paint(make_spec())[0]
    for strength in (1.0, -0.5):
        spec = make_spec(loras=(LoraUse(id="ink", strength=strength),))
        woven = weaver.paint(spec)[0]
        stock = changed(base, plus(made, strength))
        assert difference(woven, paint_stock(stock, spec)) <= TOLERANCE
        assert difference(plain, woven) > 0.02


XL_PREFIXES = {"text_encoder": "lora_te1_text_model_", "text_encoder_2": "lora_te2_text_model_"}
XL_UNET = {  # layers of a small UNet by kohya's names, in diffusers' form and in the makers'
    "diffusers": lambda layer: "lora_unet_" + layer.replace(".", "_"),
    "lycoris": lambda layer: "lycoris_" + layer.replace(".", "_"),
    "makers": lambda layer: "lora_unet_" + in_makers_names(layer).replace(".", "_"),
}
XL_LAYERS = {
    "unet": (
        "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
        "down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k",
        "mid_block.attentions.0.transformer_blocks.0.ff.net.2",
        "up_blocks.0.attentions.1.transformer_blocks.0.attn1.to_out.0",
    ),
    "text_encoder": ("encoder.layers.0.self_attn.q_proj",),
    "text_encoder_2": ("text_model.encoder.layers.0.self_attn.v_proj",),
}


def in_makers_names(layer: str) -> str:
    """Rename a layer of a UNet with one resnet in a block, in the first Stable Diffusion's way."""
    for pattern, block in (
        (r"down_blocks\.(\d)\.attentions\.0", lambda m: f"input_blocks.{2 * int(m[1]) + 1}.1"),
        (r"mid_block\.attentions\.0", lambda _: "middle_block.1"),
        (
            r"up_blocks\.(\d)\.attentions\.(\d)",
            lambda m: f"output_blocks.{2 * int(m[1]) + int(m[2])}.1",
        ),
    ):
        layer = re.sub(pattern, block, layer)
    return layer


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("xl")
    make_xl().save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("lora_way")
@pytest.mark.parametrize("names", XL_UNET)
def test_lycoris_of_xl_equals_stock_in_each_naming(
    xl: Path, tmp_path: Path, make_spec: MakeSpec, names: str
) -> None:
    base = diffusers.StableDiffusionXLPipeline.from_pretrained(xl)
    made = make(base, XL_LAYERS)
    tensors = {}
    for (component, layer), own in made.items():
        bare = layer.removeprefix("text_model.").replace(".", "_")
        name = XL_UNET[names](layer) if component == "unet" else XL_PREFIXES[component] + bare
        tensors |= {f"{name}.{kind}": tensor for kind, tensor in own.tensors.items()}
    file = save(tensors, tmp_path / "ink.safetensors")
    weaver = Weaver(xl, [AddOn(id="ink", type="lora", source=file)])
    spec = make_spec(loras=(LoraUse(id="ink", strength=0.8),))
    plain, woven = weaver.paint(make_spec(), spec)
    weaver.engine.close()
    assert difference(woven, paint_stock(changed(base, plus(made, 0.8)), spec)) <= TOLERANCE
    assert difference(plain, woven) > 0.001


# -- Refused --------------------------------------------------------------------------------------

GOOD = {f"x.{kind}": tensor for kind, tensor in loha(LINEAR).tensors.items()}
KRON = {f"x.{kind}": tensor for kind, tensor in lokr(LINEAR).tensors.items()}
HARM: Mapping[str, tuple[Tensors, str]] = {
    "half": ({n: t for n, t in GOOD.items() if "w2_b" not in n}, "hada_w2_a for x"),
    "one-core": (GOOD | {"x.hada_t1": draw(3, 3, 3, 3)}, "hada_t1"),
    "both-forms": (GOOD | KRON, "lokr_w1"),
    "lora-and-loha": (GOOD | {"x.lora_mid.weight": draw(3, 3, 3, 3)}, "lora_mid"),
    "two-firsts": (KRON | {"x.lokr_w1_a": draw(4, 2), "x.lokr_w1_b": draw(2, 4)}, "lokr_w1_a"),
    "core-of-the-first": (KRON | {"x.lokr_t1": draw(3, 3, 3, 3)}, "lokr_t1"),
    "ranks": (GOOD | {"x.hada_w1_b": draw(4, 24)}, "hada_w1_a"),
    "no-rank": (GOOD | {"x.hada_w1_a": draw(16, 0), "x.hada_w1_b": draw(0, 24)}, "hada_w1_a"),
    "flat": (KRON | {"x.lokr_w1": draw(4)}, "lokr_w1"),
    "alphas": (GOOD | {"x.alpha": draw(2)}, "alpha of the shape"),
    "peft-no-alpha": (
        {n.replace("x.", "unet.x."): t for n, t in GOOD.items() if "alpha" not in n},
        "no alpha for unet",
    ),
    "full-and-loha": (GOOD | {"x.diff": draw(16, 24)}, "diff, hada_w1_a"),
    "no-form": ({"x.lora_w1": draw(16, 24)}, "lora_w1 for x"),
    "full-of-a-vector": ({"x.diff": draw(16)}, "diff for x"),
    "lora-beside": (GOOD | {"x.lora_down.weight": draw(3, 24)}, "two adapters for x"),
    "core-alone": ({"x.lora_mid.weight": draw(3, 3, 3, 3)}, "core without its halves"),
    "core-of-another-rank": (
        {
            "x.lora_mid.weight": draw(3, 2, 3, 3),
            "x.lora_down.weight": draw(3, 24, 1, 1),
            "x.lora_up.weight": draw(16, 3, 1, 1),
        },
        r"a core of the shape \(3, 2, 3, 3\) for x",
    ),
}


@pytest.mark.parametrize(("tensors", "reason"), HARM.values(), ids=HARM)
def test_what_is_no_whole_lycoris_is_refused(tensors: Tensors, reason: str) -> None:
    with pytest.raises(Unfit) as caught:
        in_pairs(tensors)
    assert re.search(rf"^found .*{reason}.*, expected .", str(caught.value))


@pytest.mark.parametrize("kind", ["diff_b", "w_norm"])
def test_differences_that_no_matrices_hold_are_refused(kind: str) -> None:
    with pytest.raises(Unfit, match=f"the tensor x.{kind}"):
        read_pairs({"x.diff": draw(16, 24), f"x.{kind}": draw(16)}, {}, dict)


@pytest.mark.parametrize("shape", [(32, 16), (16, 32, 3, 3)], ids=["linear", "conv"])
def test_lycoris_for_other_shapes_is_an_error_of_its_field(
    weaver: Weaver, tmp_path: Path, make_spec: MakeSpec, shape: Shape
) -> None:
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    tensors = {f"{name}.{kind}": tensor for kind, tensor in loha(shape).tensors.items()}
    weaver.known[:] = [
        AddOn(id="bad", type="lora", source=save(tensors, tmp_path / "bad.safetensors"))
    ]
    with pytest.raises(errors.AddOnMisfit, match="found matrices for weights of"):
        weaver.paint(make_spec(loras=(LoraUse(id="bad", strength=1),)))
