"""DoRAs: weights decomposed in lengths and directions."""

from collections.abc import Callable

import pytest
from diffusers import DiffusionPipeline

from serve_app import errors
from tests.engine.lora_files import LAYERS, kohya, kohya_name, make
from tests.engine.lora_files import peft as in_peft_names
from tests.engine.loras.strengths import VISIBLE, MakeSpec, plus, using
from tests.engine.weaving import TOLERANCE, Weaver, changed, difference, paint_stock

# peft warns of a second adapter, which is what is wanted.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute"),
    pytest.mark.usefixtures("lora_way"),
]


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_dora_is_the_first_of_a_request_and_the_others_follow_by_name(
    weaver: Weaver, base: DiffusionPipeline, add: Callable[..., None], make_spec: MakeSpec
) -> None:
    made = make(base, {"unet": LAYERS["unet"][:1]})
    add("b", in_peft_names(made, is_dora=True))
    for name in ("a", "c"):
        add(name, kohya(made))
    for order in ("abc", "cba", "bac", "cab"):
        spec = make_spec(loras=using(*((name, 1) for name in order)))
        named = weaver._add_ons.of(spec).loras
        keys = [adapter.key for adapter, _ in weaver.request(spec).body.loras.uses]
        assert keys == [named[name].key for name in "bac"]


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
