"""ControlNets in shared forwards: equal to the stock pipelines, alone and in any batch."""

import copy
import dataclasses
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, DiffusionPipeline
from PIL import Image

from serve_app.engine.engine import Engine
from serve_app.engine.request import Progress, Request
from serve_app.models import AddOn, ModelEntry
from serve_app.pipelines.addons.lookup import AddOns
from serve_app.pipelines.checkpoint import Checkpoint
from serve_app.pipelines.compose import Canvas
from serve_app.pipelines.control import Control
from serve_app.pipelines.loader import load_checkpoint
from serve_app.pipelines.work import Painting, Sample
from serve_app.testing.checkpoints import write_random_inpaint
from serve_app.testing.controlnets import random_controlnet
from serve_app.testing.ip_adapters import write_random_ip_adapter
from serve_app.types import (
    ControlNetUse,
    ControlType,
    GenerationSpec,
    IpAdapterUse,
    Kind,
    LoraUse,
)
from tests.engine.conftest import SHAPES
from tests.engine.lora_files import kohya, make, save
from tests.engine.test_families import make_xl
from tests.engine.weaving import CPU, TOLERANCE, changed, difference, stock_scheduler

STOCK = {
    "plain": "StableDiffusionControlNet",
    "inpaint": "StableDiffusionControlNet",
    "attention": "StableDiffusionControlNet",
    "xl": "StableDiffusionXLControlNet",
}
NETS = ("canny", "depth", "shuffle")
ENDINGS = {Kind.TEXT2IMG: "", Kind.IMG2IMG: "Img2Img", Kind.INPAINT: "Inpaint"}
SAMPLERS = (
    "DDIMScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "UniPCMultistepScheduler",
)


@dataclass
class Net:
    """A checkpoint with three ControlNets: as it is served, and as diffusers has it."""

    shape: str
    checkpoint: Checkpoint
    engine: Engine
    add_ons: AddOns
    nets: dict[str, ControlNetModel]
    base: DiffusionPipeline
    adapter: Path | None = None

    def request(self, spec: GenerationSpec, canvas: Canvas | None, picture: Image.Image) -> Request:
        """Do what a painter does before its engine gets a request."""
        checkpoint, named = self.checkpoint, self.add_ons.of(spec)
        nets = checkpoint.controlnets.get(named.controlnets)
        pictures = tuple(
            None if use.hint is ControlType.INPAINT else picture for use in spec.acting_controlnets
        )
        body = Sample(
            checkpoint=checkpoint,
            spec=spec,
            canvas=canvas if spec.kind is not Kind.TEXT2IMG else None,
            size=canvas.size if canvas and spec.kind is Kind.INPAINT else (spec.height, spec.width),
            scheduler=checkpoint.schedulers.make(spec),
            variant=(variant := checkpoint.variants.of(spec, named)),
            progress=Progress(),
            prompt=(
                variant.ip_adapter.prompt(picture, spec.ip_adapter.scale)
                if variant.ip_adapter and spec.ip_adapter
                else None
            ),
            loras=checkpoint.loras.choose(spec.loras, named.loras),
            control=Control.of(spec, nets, pictures) if nets else None,
        )
        return Request(body, variant=body.variant)

    def stock(
        self, spec: GenerationSpec, canvas: Canvas, picture: Image.Image, **changes: object
    ) -> torch.Tensor:
        """Let diffusers alone paint."""
        nets = [self.nets[use.id] for use in spec.controlnets]
        prefix = STOCK[self.shape]
        kind = Kind.INPAINT if self.shape == "inpaint" else spec.kind
        cls = getattr(diffusers, f"{prefix}{ENDINGS[kind]}Pipeline")
        parts = self.base.components | {"scheduler": stock_scheduler(self.base, spec.scheduler)}
        parts["controlnet"] = nets if len(nets) > 1 else nets[0]
        if self.shape != "xl":
            parts["requires_safety_checker"] = False
        pipeline = cls(**parts)
        pipeline.set_progress_bar_config(disable=True)
        if self.adapter is not None and spec.ip_adapter:
            pipeline.feature_extractor = None  # it is for 224 pixels
            pipeline.load_ip_adapter(str(self.adapter), "", "ip_adapter.safetensors")
            pipeline.set_ip_adapter_scale(spec.ip_adapter.scale)
            changes |= {"ip_adapter_image": picture}
        arguments: dict[str, object] = {
            "prompt": spec.prompt,
            "negative_prompt": spec.negative_prompt or None,
            "height": spec.height,
            "width": spec.width,
            "num_inference_steps": spec.steps,
            "guidance_scale": spec.guidance_scale,
            "generator": torch.Generator().manual_seed(spec.seed),
            "output_type": "pt",
            "guess_mode": spec.guess_mode,
            "control_guidance_start": spec.control_start,
            "control_guidance_end": spec.control_end,
        }
        scales = [use.scale for use in spec.controlnets]
        pictures = [picture] * len(nets) if len(nets) > 1 else picture
        arguments["controlnet_conditioning_scale"] = scales if len(nets) > 1 else scales[0]
        arguments["image" if kind is Kind.TEXT2IMG else "control_image"] = pictures
        if kind is not Kind.TEXT2IMG:
            arguments |= {"image": canvas.init, "strength": spec.strength}
        white = Image.new("L", (spec.width, spec.height), 255)
        if kind is Kind.INPAINT:
            arguments["mask_image"] = canvas.mask if spec.kind is kind else white
        if spec.kind is Kind.TEXT2IMG and kind is Kind.INPAINT:
            grey = Image.new("RGB", white.size, (128, 128, 128))
            arguments |= {"image": grey, "strength": 1.0}
        return pipeline(**arguments | changes).images[0]


@pytest.fixture(scope="module")
def net_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Net]]:
    made: dict[str, Net] = {}

    def make(shape: str) -> Net:
        if shape not in made:
            made[shape] = _make(shape, tmp_path_factory.mktemp(shape))
        return made[shape]

    yield make
    for net in made.values():
        net.engine.close()


def _make(shape: str, root: Path) -> Net:
    folder = root / "model"
    if shape == "xl":
        torch.manual_seed(5)
        make_xl().save_pretrained(folder)
    else:
        write_random_inpaint(folder, seed=5, unet=SHAPES[shape])
    options = {} if shape == "xl" else {"safety_checker": None}
    base = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32, **options)
    cell_px = 2 if shape == "xl" else 8
    nets, add_ons = {}, {}
    for seed, name in enumerate(NETS):
        settings = {"global_pool_conditions": True} if name == "shuffle" else {}
        if name == "depth":
            settings["controlnet_conditioning_channel_order"] = "bgr"
        nets[name] = random_controlnet(base.unet, seed + 1, cell_px, **settings)
        nets[name].save_pretrained(root / name)
        add_ons[name] = AddOn(id=name, type="controlnet", source=root / name)
    adapter = root / "face"
    if shape == "attention":
        write_random_ip_adapter(adapter, base.unet)
        add_ons["face"] = AddOn(id="face", type="ip_adapter", source=adapter)
        file = save(kohya(make(base)), root / "ink.safetensors")
        add_ons["ink"] = AddOn(id="ink", type="lora", source=file)
    entry = ModelEntry(id="random", source=folder, kinds=tuple(Kind), native_size_px=64)
    found = AddOns("random", lambda id_, _type: add_ons.get(id_))
    config = CPU.model_copy(update={"turn_groups": 3, "max_live": 16})
    checkpoint = load_checkpoint(entry, config)
    engine = Engine(config, checkpoint.variants.activate)
    return Net(shape, checkpoint, engine, found, nets, base, adapter)


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """A control picture: white lines and dots on black."""
    values = np.zeros((64, 64, 3), np.uint8)
    values[10:14], values[:, 30:33] = 255, (255, 200, 90)
    values[40:60, 8:20] = np.random.default_rng(1).integers(0, 256, (20, 12, 3), dtype=np.uint8)
    return Image.fromarray(values)


def uses(*scales: float, names: Sequence[str] = NETS) -> tuple[ControlNetUse, ...]:
    return tuple(
        ControlNetUse(id=name, scale=scale) for name, scale in zip(names, scales, strict=False)
    )


def weave(
    net: Net,
    specs: Sequence[GenerationSpec],
    canvas: Canvas,
    picture: Image.Image,
) -> list[torch.Tensor]:
    """Paint all specs together, submitted at random times."""
    rng, futures = random.Random(len(specs)), []
    for spec in specs:
        own = canvas if spec.kind is Kind.INPAINT else Canvas(canvas.init, None, canvas.box)
        futures.append(net.engine.submit(net.request(spec, own, picture)))
        time.sleep(rng.random() * 0.01)
    paintings = [future.result(60) for future in futures]
    return [painting.image for painting in paintings if isinstance(painting, Painting)]


SCALES = {"one": (0.7,), "two": (0.4, 1.3), "three": (1.0, 0.5, 2.0)}


def names(scales: str, number: int) -> Sequence[str]:
    """Take turns where there is one net; stock fails where one that pools comes before another."""
    return NETS[number % 3 :] if scales == "one" else NETS


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
