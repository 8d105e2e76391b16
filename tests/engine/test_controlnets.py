"""ControlNets in shared forwards: equal to the stock pipelines, alone and in any batch."""

import copy
import dataclasses
import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from serve_app.pipelines.compose import Canvas
from serve_app.types import (
    ControlNetUse,
    ControlType,
    GenerationSpec,
    IpAdapterUse,
    Kind,
    LoraUse,
)
from tests.engine.lora_files import make
from tests.engine.nets import NETS, Net, make_net, uses, weave
from tests.engine.weaving import CPU, TOLERANCE, changed, difference

SAMPLERS = (
    "DDIMScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "UniPCMultistepScheduler",
)


@pytest.fixture(scope="module")
def net_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Net]]:
    made: dict[str, Net] = {}

    def make(shape: str) -> Net:
        if shape not in made:
            made[shape] = make_net(shape, tmp_path_factory.mktemp(shape))
        return made[shape]

    yield make
    for net in made.values():
        net.engine.close()


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """A control picture: white lines and dots on black."""
    values = np.zeros((64, 64, 3), np.uint8)
    values[10:14], values[:, 30:33] = 255, (255, 200, 90)
    values[40:60, 8:20] = np.random.default_rng(1).integers(0, 256, (20, 12, 3), dtype=np.uint8)
    return Image.fromarray(values)


SCALES = {"one": (0.7,), "two": (0.4, 1.3), "three": (1.0, 0.5, 2.0)}


def names(scales: str, number: int) -> Sequence[str]:
    """Take turns where there is one net; stock fails where one that pools comes before another."""
    return NETS[number % 3 :] if scales == "one" else NETS


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["plain", "inpaint", "xl"])
@pytest.mark.parametrize(
    "turn", ["in-turn", *(pytest.param(scales, marks=pytest.mark.long) for scales in SCALES)]
)
def test_engine_with_controlnets_equals_stock_over_kinds_and_samplers(
    shape: str,
    turn: str,
    net_of: Callable[[str], Net],
    canvas: Canvas,
    picture: Image.Image,
    make_spec: Callable[..., GenerationSpec],
) -> None:
    """Each kind with each sampler on one shape, with one to three nets in turn; or all of it."""
    net = net_of(shape)
    pairs = [
        (kind, scheduler) for kind in Kind for scheduler in SAMPLERS[: 2 if shape == "xl" else None]
    ]
    if turn == "in-turn" and shape != "xl":
        pairs = pairs[shape == "inpaint" :: 2]
    specs = [
        make_spec(
            kind=kind,
            scheduler=scheduler,
            steps=3 + number % 3,
            seed=number,
            strength=(0.7, 1.0)[number % 2],
            guidance_scale=(4.0, 1.0, 7.5)[number % 3],
            negative_prompt=("", "blurry")[number % 2],
            controlnets=uses(*SCALES[scales], names=names(scales, number)),
            guess_mode=number % 4 == 3,
            control_start=(0.0, 0.3)[number % 2],
            control_end=(1.0, 0.7)[number // 2 % 2],
        )
        for number, (kind, scheduler) in enumerate(pairs)
        for scales in ([list(SCALES)[number % len(SCALES)]] if turn == "in-turn" else [turn])
    ]
    before = net.engine.snapshot()
    woven = weave(net, specs, canvas, picture)
    counts = net.engine.snapshot()
    assert counts.rows - before.rows > 3 * (counts.forwards - before.forwards)
    for spec, image in zip(specs, woven, strict=True):
        assert difference(image, net.stock(spec, canvas, picture)) <= TOLERANCE, spec


@pytest.mark.slow
@pytest.mark.parametrize("num_specs", [5, pytest.param(12, marks=pytest.mark.long)])
@pytest.mark.parametrize("shape", ["plain", "inpaint", "xl"])
def test_controlnet_requests_alone_equal_those_in_any_batch(
    shape: str,
    num_specs: int,
    net_of: Callable[[str], Net],
    canvas: Canvas,
    picture: Image.Image,
    make_spec: Callable[..., GenerationSpec],
) -> None:
    net = net_of(shape)
    rng = random.Random(shape)
    sets = [(), uses(0.8), uses(0.5, 1.5), uses(0.9, names=["depth"]), uses(1.0, 0.0, 0.7)]
    specs = [
        make_spec(
            kind=rng.choice(list(Kind)),
            scheduler=rng.choice(SAMPLERS),
            steps=rng.randint(3, 5),
            seed=seed,
            guidance_scale=rng.choice([1.0, 5.0]),
            controlnets=sets[seed % len(sets)],
            guess_mode=rng.random() < 0.3,
            self_attention=seed == 3,
            tomesd=seed in (4, 6),
        )
        for seed in range(num_specs)
    ]
    alone = [weave(net, [spec], canvas, picture)[0] for spec in specs]
    together = weave(net, specs, canvas, picture)
    for one, other in zip(alone, together, strict=True):
        assert difference(one, other) <= TOLERANCE
    plain = [spec.model_copy(update={"controlnets": ()}) for spec in specs]
    for spec, image, own in zip(specs, weave(net, plain, canvas, picture), alone, strict=True):
        assert (difference(image, own) > 1e-3) is bool(spec.acting_controlnets)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["plain", "inpaint", "xl"])
def test_rows_with_and_without_controlnets_share_denoiser_forwards(
    shape: str,
    net_of: Callable[[str], Net],
    canvas: Canvas,
    picture: Image.Image,
    make_spec: Callable[..., GenerationSpec],
) -> None:
    """All kinds, with and without: as many forwards as there are steps, and a few to begin."""
    net = net_of(shape)
    specs = [
        make_spec(
            seed=number,
            kind=kind,
            steps=8,
            strength=1.0,
            controlnets=uses(1.0) if number % 2 else (),
        )
        for number, kind in enumerate([*Kind, *Kind])
    ]
    before = net.engine.snapshot()
    weave(net, specs, canvas, picture)
    counts = net.engine.snapshot()
    assert counts.forwards - before.forwards <= 15


@pytest.mark.slow
def test_controlnet_of_scale_0_or_outside_its_steps_runs_no_forward(
    net_of: Callable[[str], Net],
    canvas: Canvas,
    picture: Image.Image,
    make_spec: Callable[..., GenerationSpec],
) -> None:
    net, ran = net_of("plain"), []
    loaded = net.checkpoint.controlnets.get(
        net.add_ons.of(make_spec(controlnets=uses(1.0))).controlnets
    )[0]
    run = loaded.lane.run
    object.__setattr__(loaded.lane, "run", lambda arguments: (ran.append(1), run(arguments))[1])
    spec = make_spec(steps=10, controlnets=uses(0.0, 1.0))
    (image,) = weave(net, [spec], canvas, picture)
    assert not ran
    other = spec.model_copy(update={"controlnets": uses(1.0, names=["depth"])})
    assert difference(image, weave(net, [other], canvas, picture)[0]) == 0
    half = make_spec(steps=10, controlnets=uses(1.0), control_start=0.5)
    weave(net, [half], canvas, picture)
    object.__setattr__(loaded.lane, "run", run)
    assert len(ran) == 5


def test_crop_around_a_mask_crops_the_control_picture(
    net_of: Callable[[str], Net],
    canvas: Canvas,
    picture: Image.Image,
    make_spec: Callable[..., GenerationSpec],
) -> None:
    net, box = net_of("plain"), (0, 16, 64, 64)
    spec = make_spec(kind=Kind.INPAINT, controlnets=uses(1.0), strength=0.9)
    crop = Canvas(canvas.init, canvas.mask, box)
    (image,) = weave(net, [spec], crop, picture)
    assert canvas.mask is not None
    whole = Canvas(canvas.init.crop(box), canvas.mask.crop(box), (0, 0, 64, 48))
    stock = net.stock(spec, whole, picture.crop(box), height=48)
    assert difference(image, stock) <= TOLERANCE


@pytest.mark.parametrize("shape", ["plain", "inpaint"])
def test_inpaint_controlnet_sees_what_is_to_be_repainted(
    shape: str,
    net_of: Callable[[str], Net],
    canvas: Canvas,
    picture: Image.Image,
    make_spec: Callable[..., GenerationSpec],
) -> None:
    net = net_of(shape)
    use = ControlNetUse(id="canny", scale=1.0, hint=ControlType.INPAINT)
    spec = make_spec(kind=Kind.INPAINT, controlnets=(use,), strength=0.9)
    (image,) = weave(net, [spec], canvas, picture)
    marked = np.asarray(canvas.init, np.float32) / 255
    marked = np.where(np.asarray(canvas.mask)[..., None] > 127, np.float32(-1), marked)
    control = torch.from_numpy(marked).permute(2, 0, 1)[None]
    stock = net.stock(spec, canvas, picture, control_image=control)
    assert difference(image, stock) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(Kind))
def test_loras_and_controlnets_compose_row_by_row(
    net_of: Callable[[str], Net],
    canvas: Canvas,
    picture: Image.Image,
    make_spec: Callable[..., GenerationSpec],
    kind: Kind,
) -> None:
    """Each with and without the other in the same forwards; a LoRA leaves the ControlNet alone."""
    net = net_of("attention")
    ink = (LoraUse(id="ink", strength=0.8),)
    specs = [
        make_spec(kind=kind, steps=4, strength=0.8, loras=loras, controlnets=nets, seed=seed)
        for seed, (loras, nets) in enumerate(
            (loras, nets) for loras in ((), ink) for nets in ((), uses(0.9), uses(0.4, 1.3))
        )
    ]
    woven = weave(net, specs, canvas, picture)
    products = {
        key: lambda weight, own=own: weight + 0.8 * own.product()
        for key, own in make(net.base).items()
    }
    inked = dataclasses.replace(net, base=changed(net.base, products))
    for spec, made in zip(specs, woven, strict=True):
        if spec.controlnets:
            expected = (inked if spec.loras else net).stock(spec, canvas, picture)
            assert difference(made, expected) <= TOLERANCE, spec
    assert difference(woven[1], woven[4]) > 0.02


@pytest.mark.slow
def test_token_merging_and_controlnets_equal_stock_together(
    net_of: Callable[[str], Net],
    canvas: Canvas,
    picture: Image.Image,
    make_spec: Callable[..., GenerationSpec],
) -> None:
    import tomesd

    net = net_of("attention")
    spec = make_spec(tomesd=True, controlnets=uses(1.0, 0.6), height=128, width=128)
    large = picture.resize((128, 128))
    (image,) = weave(net, [spec], canvas, large)
    patched = copy.deepcopy(net.base)
    tomesd.apply_patch(patched.unet, ratio=CPU.tomesd_ratio, use_rand=False)
    stock = dataclasses.replace(net, base=patched).stock(spec, canvas, large)
    assert difference(image, stock) <= TOLERANCE
    assert difference(image, net.stock(spec, canvas, large)) > TOLERANCE


@pytest.mark.slow
def test_ip_adapter_and_controlnets_equal_stock_together(
    net_of: Callable[[str], Net],
    canvas: Canvas,
    picture: Image.Image,
    make_spec: Callable[..., GenerationSpec],
) -> None:
    net = net_of("attention")
    adapter = IpAdapterUse(id="face", scale=0.6)
    specs = [make_spec(ip_adapter=adapter, controlnets=uses(1.0), seed=1), make_spec(seed=2)]
    image, _ = weave(net, specs, canvas, picture)
    stock = dataclasses.replace(net, base=copy.deepcopy(net.base))
    assert difference(image, stock.stock(specs[0], canvas, picture)) <= TOLERANCE
    plain = specs[0].model_copy(update={"ip_adapter": None})
    assert difference(image, net.stock(plain, canvas, picture)) > 1e-3
