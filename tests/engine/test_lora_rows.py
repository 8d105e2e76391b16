"""Requests with LoRAs of their own share forwards, and each is painted as it were alone."""

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers import DiffusionPipeline
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch.nn import functional

from serve_app.config import EngineConfig
from serve_app.models import AddOn
from serve_app.pipelines.addons import lora_places
from serve_app.pipelines.addons.lora_layers import LoraLayers
from serve_app.pipelines.addons.lora_set import LoraSet
from serve_app.pipelines.addons.loras import LORA_ROWS
from serve_app.types import GenerationSpec, LoraUse
from tests.engine.lora_files import LAYERS, Made, kohya, make, peft, save
from tests.engine.weaving import CPU, TOLERANCE, Weaver, changed, difference, paint_stock, truth

MakeSpec = Callable[..., GenerationSpec]
ALIKE = 2e-5  # of a value in [0, 1]: rounding in company
SAMPLERS = (
    "DDIMScheduler",
    "EulerDiscreteScheduler",
    "UniPCMultistepScheduler",
    "DPMSolverMultistepScheduler",
)
TEXT_ALONE = {"text_encoder": LAYERS["text_encoder"]}
ATTENTION = {"unet": tuple(name for name in LAYERS["unet"] if "transformer" in name)}
MADE = {  # what each LoRA acts on, and its ranks
    "all": (LAYERS, (4, 2)),
    "large": (LAYERS, (40, 4)),
    "attention": (ATTENTION, (8,)),
    "text": (TEXT_ALONE, (4,)),
    "dora": (LAYERS, (4,)),
}


@pytest.fixture(scope="module")
def base(folder: Callable[[str], Path]) -> DiffusionPipeline:
    return diffusers.StableDiffusionPipeline.from_pretrained(
        folder("attention"), safety_checker=None
    )


@pytest.fixture(scope="module")
def made(base: DiffusionPipeline) -> dict[str, Made]:
    return {
        name: make(base, layers, ranks, seed)
        for seed, (name, (layers, ranks)) in enumerate(MADE.items())
    }


@pytest.fixture(scope="module")
def add_ons(made: dict[str, Made], tmp_path_factory: pytest.TempPathFactory) -> list[AddOn]:
    root = tmp_path_factory.mktemp("loras")
    for name, own in made.items():
        tensors = peft(own, is_dora=True) if name == "dora" else kohya(own)
        save(tensors, root / f"{name}.safetensors")
    return [AddOn(id=name, type="lora", source=root / f"{name}.safetensors") for name in made]


@pytest.fixture(scope="module")
def open_weaver(
    folder: Callable[[str], Path], add_ons: list[AddOn]
) -> Iterator[Callable[..., Weaver]]:
    weavers: list[Weaver] = []

    def open_one(**changes: object) -> Weaver:
        config: EngineConfig = CPU.model_copy(update=changes)
        weavers.append(Weaver(folder("attention"), add_ons, config))
        return weavers[-1]

    yield open_one
    for weaver in weavers:
        weaver.engine.close()


@pytest.fixture(scope="module")
def weaver(open_weaver: Callable[..., Weaver]) -> Weaver:
    return open_weaver()


def using(**strengths: float) -> tuple[LoraUse, ...]:
    return tuple(LoraUse(id=name, strength=strength) for name, strength in strengths.items())


SETS = [
    using(),
    using(all=1),
    using(large=-0.7),
    using(attention=0.5, all=0.3),
    using(text=1),
    using(dora=0.8),
    using(dora=1, large=0.4, attention=0.2),
]


@pytest.mark.usefixtures("lora_way")
@pytest.mark.slow
def test_sets_in_one_forward_equal_stock_each(
    weaver: Weaver, base: DiffusionPipeline, made: dict[str, Made], make_spec: MakeSpec
) -> None:
    specs = [
        make_spec(
            loras=uses,
            steps=4 + number % 3,
            seed=number,
            scheduler=SAMPLERS[number % len(SAMPLERS)],
        )
        for number, uses in enumerate(SETS * 2)
    ]
    before = weaver.engine.snapshot()
    woven = weaver.paint(*specs)
    after = weaver.engine.snapshot()
    for spec, picture in zip(specs, woven, strict=True):
        assert difference(picture, truth(base, made, spec)) <= TOLERANCE, spec.loras
    # Two rows a request, of which the row cap takes part at a time; one by one it would be 2.
    assert (after.rows - before.rows) / (after.forwards - before.forwards) > 10
    assert before.switches in (after.switches, 0)


@pytest.mark.usefixtures("lora_way")
@pytest.mark.slow
def test_sixteen_at_once_and_ranks_beyond_the_layers_equal_the_arithmetic(
    folder: Callable[[str], Path], base: DiffusionPipeline, tmp_path: Path, make_spec: MakeSpec
) -> None:
    made = {f"small{number}": make(base, LAYERS, (2,), seed=number) for number in range(15)}
    made["wide"] = make(base, ATTENTION, (1024,), seed=99)
    files = {name: save(kohya(own), tmp_path / f"{name}.safetensors") for name, own in made.items()}
    add_ons = [AddOn(id=name, type="lora", source=file) for name, file in files.items()]
    weaver = Weaver(folder("attention"), add_ons)
    strengths = {name: 0.01 if name == "wide" else 0.3 for name in made}
    many, none = make_spec(loras=using(**strengths), steps=4), make_spec(steps=4, seed=9)
    woven = weaver.paint(many, none)
    weaver.engine.close()
    assert difference(woven[0], truth(base, made, many)) <= TOLERANCE
    assert difference(woven[1], paint_stock(base, none)) <= TOLERANCE
    assert difference(woven[0], paint_stock(base, many)) > 0.02


@pytest.mark.usefixtures("lora_way")
@pytest.mark.slow
@settings(
    max_examples=12, phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(st.lists(st.tuples(st.sampled_from(range(len(SETS))), st.integers(2, 6)), max_size=6))
def test_company_changes_no_picture(
    weaver: Weaver, make_spec: MakeSpec, company: list[tuple[int, int]]
) -> None:
    """Others of any set join and leave while a request runs."""
    own = [make_spec(loras=uses, steps=5, seed=1) for uses in (using(), using(all=1, dora=0.5))]
    others = [
        make_spec(loras=SETS[index], steps=steps, seed=number, prompt=f"picture {number}")
        for number, (index, steps) in enumerate(company)
    ]
    order = [*own, *others]
    random.Random(len(others)).shuffle(order)
    woven = dict(zip(map(id, order), weaver.paint(*order), strict=True))
    for spec in own:
        (alone,) = weaver.paint(spec)
        assert difference(woven[id(spec)], alone) <= ALIKE


def test_forward_whose_matrices_need_too_much_memory_runs_in_parts(
    open_weaver: Callable[..., Weaver], weaver: Weaver, make_spec: MakeSpec
) -> None:
    narrow = open_weaver(lora_batch_bytes=1)
    forwards: list[int] = []
    unet = narrow.checkpoint.base.unet
    hook = unet.register_forward_hook(lambda _own, inputs, _output: forwards.append(len(inputs[0])))
    specs = [make_spec(loras=uses, steps=3, seed=n) for n, uses in enumerate(SETS)]
    woven = narrow.paint(*specs)
    hook.remove()
    for one, other in zip(woven, weaver.paint(*specs), strict=True):
        assert difference(one, other) <= ALIKE
    assert set(forwards) == {2}, "one request's rows are never parted"


def test_rows_without_loras_stay_together_where_memory_is_short(
    open_weaver: Callable[..., Weaver], make_spec: MakeSpec
) -> None:
    narrow, forwards = open_weaver(lora_batch_bytes=1), list[int]()
    unet = narrow.checkpoint.base.unet
    hook = unet.register_forward_hook(lambda _own, inputs, _output: forwards.append(len(inputs[0])))
    spec = make_spec(steps=1)
    sets = [narrow.request(spec.model_copy(update={"loras": uses})).body.loras for uses in SETS[:3]]
    numbers = [sets[index].number for index in (0, 1, 0, 2, 0, 1)]
    sample = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    text = torch.randn(6, 77, 32, generator=torch.Generator().manual_seed(1))
    arguments = {"sample": sample, "timestep": torch.full((6,), 500.0)}
    arguments |= {"encoder_hidden_states": text, "return_dict": False}
    marks = {LORA_ROWS: torch.tensor(numbers)}
    with torch.inference_mode():
        (together,) = narrow.checkpoint.denoiser.run(arguments | marks)
        assert sorted(forwards) == [1, 2, 3]
        for row, number in enumerate(numbers):
            one = {name: value[row : row + 1] if name != "return_dict" else value
                   for name, value in arguments.items()}  # fmt: skip
            marks = {LORA_ROWS: torch.tensor([number])}
            (alone,) = narrow.checkpoint.denoiser.run(one | marks)
            assert difference(together[row : row + 1], alone) <= ALIKE
    hook.remove()


def test_rows_are_brought_in_order_once(
    weaver: Weaver, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of one set together; last of sets that change much, so that layers touch few rows."""
    spec, asked = make_spec(steps=1), (using(all=1), using(), using(attention=1))
    sets = [weaver.request(spec.model_copy(update={"loras": uses})).body.loras for uses in asked]
    numbers = [own.number for own in sets] * 2
    denoiser, applied = weaver.checkpoint.loras._denoiser, list[list[LoraSet]]()
    apply = LoraLayers.apply

    def watched(self: LoraLayers, own: list[LoraSet]) -> None:
        applied.append(own)
        apply(self, own)

    monkeypatch.setattr(LoraLayers, "apply", watched)
    arguments = {
        "sample": torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(0)),
        "timestep": torch.full((6,), 500.0),
        "encoder_hidden_states": torch.randn(6, 77, 32, generator=torch.Generator().manual_seed(1)),
    }
    run = weaver.checkpoint.denoiser.run
    with torch.inference_mode():
        (together,) = run(arguments | {"return_dict": False, LORA_ROWS: torch.tensor(numbers)})
        assert applied == [[sets[1], sets[2], sets[0]]]
        for row, number in enumerate(numbers):
            one = {name: value[row : row + 1] for name, value in arguments.items()}
            marks = {"return_dict": False, LORA_ROWS: torch.tensor([number])}
            (alone,) = run(one | marks)
            assert difference(together[row : row + 1], alone) <= ALIKE
    denoiser.apply(())
    assert difference(together[0], together[3]) > 1e-3, "rows are in their places"


def test_failure_half_way_leaves_no_layer_changed(
    weaver: Weaver, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(steps=2)
    before = weaver.paint(spec)[0]
    pair, calls = lora_places.Place.pair, iter(range(3))

    def fail(self: lora_places.Place, batch: object, groups: slice) -> object:
        if next(calls, None) is None:
            raise RuntimeError("half way")
        return pair(self, batch, groups)

    monkeypatch.setattr(lora_places.Place, "pair", fail)
    request = weaver.request(spec.model_copy(update={"loras": using(attention=1)}))
    with pytest.raises(RuntimeError, match="half way"):
        weaver.engine.submit(request).result(60)
    assert difference(weaver.paint(spec)[0], before) == 0


@pytest.mark.slow
@pytest.mark.usefixtures("lora_way")
@pytest.mark.parametrize(
    "effects",
    [
        {"self_attention": True},
        {"tomesd": True},
        {"width": 96, "panorama": True},
        {"width": 96, "height": 96, "highres_fix": True},
        {"guidance_scale": 1.0},
    ],
    ids=["self-attention", "token-merging", "panorama", "highres", "no-guidance"],
)
def test_effects_and_loras_compose(
    weaver: Weaver,
    base: DiffusionPipeline,
    made: dict[str, Made],
    effects: dict[str, object],
    make_spec: MakeSpec,
    folder: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    """In company of other sets; the truth is a checkpoint saved with the changed weights."""
    uses = using(all=0.6, attention=-0.4)
    product = changed(
        changed(base, {key: lambda w, own=own: w + 0.6 * own.product()
                       for key, own in made["all"].items()}),
        {key: lambda w, own=own: w - 0.4 * own.product()
         for key, own in made["attention"].items()},
    )  # fmt: skip
    product.save_pretrained(tmp_path / "merged")
    merged = Weaver(tmp_path / "merged", [])
    spec = make_spec(steps=4, **effects)
    with_loras = spec.model_copy(update={"loras": uses})
    company = [spec, spec.model_copy(update={"loras": using(dora=1), "seed": 3})]
    picture, *others = weaver.paint(with_loras, *company)
    (expected,) = merged.paint(spec)
    merged.engine.close()
    assert difference(picture, expected) <= TOLERANCE
    assert difference(others[0], weaver.paint(spec)[0]) <= ALIKE
    assert difference(picture, others[0]) > 0.02


def test_rows_without_loras_run_the_layers_as_they_were_made(
    weaver: Weaver, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    weaver.paint(make_spec(loras=using(all=1), steps=2))
    with monkeypatch.context() as patch:
        patch.setattr(functional, "linear", _fail)
        layer = weaver.checkpoint.base.unet.time_embedding.linear_1
        with pytest.raises(AssertionError, match="is called"):
            layer(torch.zeros(1, layer.in_features))  # else the next lines would show nothing
    weaver.paint(make_spec(steps=2))
    modules = weaver.checkpoint.base.unet.modules()
    assert not any("forward" in vars(module) for module in modules)


def _fail(*_: object) -> None:
    raise AssertionError("is called")


def test_texts_are_encoded_once_for_all_loras_that_leave_the_encoder_alone(
    weaver: Weaver, make_spec: MakeSpec
) -> None:
    encoded: list[object] = []
    # A layer inside, since pipelines call the encoder's `forward` past its hooks.
    encoder = weaver.checkpoint.base.text_encoder.get_submodule("encoder.layers.0")
    hook = encoder.register_forward_hook(lambda *_: encoded.append(None))
    for uses in (using(), using(attention=1), using(attention=0.5), using(text=1), using()):
        weaver.paint(make_spec(loras=uses, steps=1, prompt="a ship in a bottle"))
    hook.remove()
    assert len(encoded) == 2 * 2  # prompt and negative, without and with the LoRA of the encoder


def test_failing_lora_fails_its_own_request(
    weaver: Weaver, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever happens when matrices are brought together, neighbours are painted."""
    good, bad = (make_spec(loras=using(**{name: 1}), steps=3) for name in ("all", "large"))
    before = weaver.paint(good)[0]
    request = weaver.request(bad)
    number = request.body.loras.number
    apply = LoraLayers.apply

    def fail(self: LoraLayers, sets: list[object]) -> None:
        if any(own.number == number for own in sets):
            raise RuntimeError("no")
        apply(self, sets)

    monkeypatch.setattr(LoraLayers, "apply", fail)
    futures = [weaver.engine.submit(one) for one in (weaver.request(good), request)]
    assert difference(futures[0].result(60).image, before) <= ALIKE
    with pytest.raises(RuntimeError, match="no"):
        futures[1].result(60)


def test_row_caps_are_measured_when_the_loras_have_gone(
    open_weaver: Callable[..., Weaver], make_spec: MakeSpec
) -> None:
    weaver = open_weaver(measure_rows=True, max_rows=4)
    weaver.paint(make_spec(loras=using(all=1), steps=2))
    deadline = time.monotonic() + 30
    while not (caps := weaver.engine.snapshot().row_caps) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert any(name.startswith("denoiser/") for name in caps)


def test_set_that_nobody_holds_is_an_error_and_no_plain_picture(weaver: Weaver) -> None:
    lane = weaver.checkpoint.denoiser
    with pytest.raises(KeyError):
        lane.run({LORA_ROWS: torch.tensor([10**9])})
