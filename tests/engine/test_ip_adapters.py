"""IP adapters: pictures as prompts, in company of requests with others and without."""

import asyncio
import copy
import io
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from serve_app import errors
from serve_app.config import EngineConfig
from serve_app.engine.engine import Engine
from serve_app.engine.request import Progress, Request
from serve_app.models import AddOn, ModelEntry
from serve_app.pipelines.addons.ip_adapters import IpAdapters
from serve_app.pipelines.addons.lookup import AddOns, Named
from serve_app.pipelines.addons.lru import Lru, Uses
from serve_app.pipelines.checkpoint import Checkpoint
from serve_app.pipelines.compose import Canvas, encode
from serve_app.pipelines.loader import load_checkpoint
from serve_app.pipelines.painter import WeavePainter
from serve_app.pipelines.work import Painting, Sample
from serve_app.testing.checkpoints import random_unet
from serve_app.testing.ip_adapters import write_random_ip_adapter
from serve_app.types import GenerationSpec, IpAdapterUse, Kind, Pictures, PreparedImages
from tests.engine.conftest import SHAPES
from tests.engine.ip_adapter_files import (
    add_adapter,
    add_face,
    add_layer,
    break_encoder,
    break_file,
    break_layer,
    break_number,
    change_encoder,
    change_tokens,
    drop_encoder,
    take_layer,
)
from tests.engine.test_families import make_xl
from tests.engine.test_parity import STOCK, TOLERANCE
from tests.engine.weaving import stock_scheduler

CPU = EngineConfig(device="cpu", measure_rows=False, channels_last=False, turn_ticks=2)
MakeSpec = Callable[..., GenerationSpec]


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders by the id that requests name; two of one kind, one that looks at patches."""
    root = tmp_path_factory.mktemp("adapters")
    for seed, name in enumerate(("face", "style", "plus")):
        unet = random_unet(SHAPES["attention"])
        write_random_ip_adapter(root / name, unet, seed, is_plus=name == "plus")
    return {name: root / name for name in ("face", "style", "plus")}


@pytest.fixture(scope="module")
def known(adapters: dict[str, Path]) -> dict[str, AddOn]:
    return {name: AddOn(id=name, type="ip_adapter", source=path) for name, path in adapters.items()}


@pytest.fixture(scope="module")
def entry(folder: Callable[[str], Path]) -> ModelEntry:
    source = folder("attention")
    return ModelEntry(id="random", source=source, kinds=tuple(Kind), native_size_px=64)


@pytest.fixture(scope="module")
def add_ons(known: dict[str, AddOn]) -> AddOns:
    return AddOns("random", lambda add_on_id, _type: known.get(add_on_id))


@pytest.fixture(scope="module")
def painter(entry: ModelEntry, add_ons: AddOns) -> Iterator[WeavePainter]:
    painter = WeavePainter(entry, CPU, load_checkpoint(entry, CPU), add_ons)
    yield painter
    painter.close()


def picture(seed: int) -> Image.Image:
    """A coarse random picture that is not square, so that its middle is looked at."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (3, 5, 3), dtype=np.uint8))
    return coarse.resize((90, 60))


def inputs(seed: int) -> PreparedImages:
    return PreparedImages(ip_adapter=encode(np.asarray(picture(seed))))


def pixels(pictures: Pictures) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(pictures.pictures[0].data))).astype(int)


def use(name: str, scale: float) -> IpAdapterUse:
    return IpAdapterUse(id=name, scale=scale)


def weave(
    checkpoint: Checkpoint, add_ons: AddOns, specs: list[GenerationSpec], canvas: Canvas
) -> tuple[list[torch.Tensor], int]:
    """Paint all specs together, each with the picture of its seed; also counts the forwards."""
    engine = Engine(CPU, checkpoint.variants.activate)
    futures = []
    for spec in specs:
        variant = checkpoint.variants.of(spec, add_ons.of(spec))
        prompt = None
        if variant.ip_adapter is not None and spec.ip_adapter is not None:
            prompt = variant.ip_adapter.prompt(picture(spec.seed), spec.ip_adapter.scale)
        body = Sample(
            checkpoint, spec, None if spec.kind is Kind.TEXT2IMG else canvas, (64, 64),
            checkpoint.schedulers.make(spec), variant, Progress(), prompt=prompt,
        )  # fmt: skip
        futures.append(engine.submit(Request(body, variant=variant)))
    try:
        results = [future.result(timeout=60) for future in futures]
        forwards = engine.snapshot().forwards
    finally:
        engine.close()
    return [result.image for result in results if isinstance(result, Painting)], forwards


class Stock:
    """diffusers alone, by its documented way to use an IP adapter."""

    def __init__(
        self,
        checkpoint: Path,
        adapters: dict[str, Path],
        classes: Mapping[Kind, type[DiffusionPipeline]] = STOCK,
    ) -> None:
        self._checkpoint = checkpoint
        self._classes = classes
        self._adapters = adapters
        self._loaded: dict[Kind, DiffusionPipeline] = {}

    def paint(self, spec: GenerationSpec, canvas: Canvas) -> torch.Tensor:
        pipeline = self._pipeline(spec)
        inputs: dict[str, object] = {"height": 64, "width": 64}
        if spec.kind is not Kind.TEXT2IMG:
            inputs = {"image": canvas.init, "strength": spec.strength}
        if spec.kind is Kind.INPAINT:
            inputs["mask_image"] = canvas.mask
        if spec.ip_adapter is not None:
            inputs["ip_adapter_image"] = picture(spec.seed)
        result = pipeline(
            prompt=spec.prompt,
            num_inference_steps=spec.steps,
            guidance_scale=spec.guidance_scale,
            generator=torch.Generator().manual_seed(spec.seed),
            output_type="pt",
            **inputs,
        )
        return result.images[0]

    def _pipeline(self, spec: GenerationSpec) -> DiffusionPipeline:
        if spec.kind not in self._loaded:
            unused = {"safety_checker": None, "feature_extractor": None}  # the latter for 224 px
            cls = self._classes[spec.kind]
            self._loaded[spec.kind] = cls.from_pretrained(self._checkpoint, **unused)
        pipeline = copy.deepcopy(self._loaded[spec.kind])
        pipeline.scheduler = stock_scheduler(pipeline, "DDIMScheduler")
        pipeline.set_progress_bar_config(disable=True)
        if spec.ip_adapter is not None:
            folder = self._adapters[spec.ip_adapter.id]
            pipeline.load_ip_adapter(str(folder), "", "ip_adapter.safetensors")
            pipeline.set_ip_adapter_scale(spec.ip_adapter.scale)
        return pipeline


@pytest.mark.slow
@pytest.mark.parametrize("every", [2, pytest.param(1, marks=pytest.mark.long)])
def test_adapters_and_scales_in_one_engine_equal_stock_each(
    every: int,
    entry: ModelEntry,
    add_ons: AddOns,
    adapters: dict[str, Path],
    canvas: Canvas,
    make_spec: MakeSpec,
) -> None:
    uses = [None, use("face", 1), use("face", 0.3), use("style", 0.6), use("plus", 0.8)]
    specs = [
        make_spec(kind=kind, ip_adapter=one, seed=seed, steps=5, strength=0.8)
        for seed, (kind, one) in list(enumerate(itertools.product(Kind, uses)))[::every]
    ] + [make_spec(ip_adapter=use("plus", 1), guidance_scale=1.0, seed=50)]
    woven, _ = weave(load_checkpoint(entry, CPU), add_ons, specs, canvas)
    compare(Stock(entry.path, adapters), specs, woven, canvas)


def compare(
    stock: Stock, specs: list[GenerationSpec], woven: list[torch.Tensor], canvas: Canvas
) -> None:
    for spec, image in zip(specs, woven, strict=True):
        difference = float((image - stock.paint(spec, canvas)).abs().max())
        assert difference <= TOLERANCE, (spec.kind, spec.ip_adapter, difference)


@pytest.mark.slow
def test_adapter_of_xl_equals_stock(canvas: Canvas, tmp_path: Path, make_spec: MakeSpec) -> None:
    torch.manual_seed(1)
    pipeline = make_xl()
    pipeline.save_pretrained(tmp_path / "xl")
    write_random_ip_adapter(tmp_path / "style", pipeline.unet)
    add_on = AddOn(id="style", type="ip_adapter", source=tmp_path / "style")
    entry = ModelEntry(id="xl", source=tmp_path / "xl", kinds=tuple(Kind), native_size_px=64)
    specs = [make_spec(ip_adapter=one, seed=1) for one in (None, use("style", 0.7))]
    add_ons = AddOns("xl", lambda _id, _type: add_on)
    woven, _ = weave(load_checkpoint(entry, CPU), add_ons, specs, canvas)
    classes = {Kind.TEXT2IMG: diffusers.StableDiffusionXLPipeline}
    compare(Stock(entry.path, {"style": tmp_path / "style"}, classes), specs, woven, canvas)


def test_pictures_and_scales_of_one_adapter_share_forwards(
    entry: ModelEntry, add_ons: AddOns, canvas: Canvas, make_spec: MakeSpec
) -> None:
    specs = [make_spec(ip_adapter=use("face", 0.2 * n), seed=n, steps=6) for n in range(4)]
    _, forwards = weave(load_checkpoint(entry, CPU), add_ons, specs, canvas)
    assert forwards < 2 * 6  # one by one it would be four times as many; the first may be ahead


async def test_picture_acts_by_its_scale_and_on_no_neighbour(
    painter: WeavePainter, make_spec: MakeSpec
) -> None:
    alone = await painter.paint(1, make_spec(steps=8), None)
    results = await asyncio.gather(
        painter.paint(1, make_spec(steps=8), None),
        *(
            painter.paint(2, make_spec(steps=8, ip_adapter=use("face", scale)), inputs(4))
            for scale in (0, 0.5, 1)
        ),
    )
    distances = [np.abs(pixels(result) - pixels(alone)).mean() for result in results]
    assert distances[0] < 0.01
    assert distances[1] < 0.01  # nothing of it, by its scale
    assert 0.5 < distances[2] < distances[3]


@pytest.mark.slow
async def test_plain_call_is_timed_while_the_hooks_of_an_adapter_are_on(
    entry: ModelEntry, add_ons: AddOns, make_spec: MakeSpec
) -> None:
    config = CPU.model_copy(update={"measure_rows": True, "max_rows": 4})
    painter = WeavePainter(entry, config, load_checkpoint(entry, config), add_ons)
    try:
        await asyncio.gather(  # the adapter's steps are the last ones
            painter.paint(1, make_spec(width=128, height=128, steps=2), None),
            painter.paint(2, make_spec(steps=12, ip_adapter=use("face", 1)), inputs(4)),
        )
        async with asyncio.timeout(30):
            while len(painter.snapshot().row_caps) < 2:
                await asyncio.sleep(0.01)
    finally:
        painter.close()


async def test_effects_of_one_request_go_together_with_its_picture(
    painter: WeavePainter, make_spec: MakeSpec
) -> None:
    effects = {"self_attention": True, "highres_fix": True, "tomesd": True, "width": 128}
    with_picture = make_spec(ip_adapter=use("plus", 1), **effects)
    first, again, without = await asyncio.gather(
        painter.paint(1, with_picture, inputs(4)),
        painter.paint(2, with_picture, inputs(4)),
        painter.paint(3, make_spec(**effects), None),
    )
    assert np.abs(pixels(first) - pixels(again)).max() <= 1
    assert np.abs(pixels(first) - pixels(without)).mean() > 0.5


async def test_adapter_without_picture_is_refused(
    painter: WeavePainter, make_spec: MakeSpec
) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        await painter.paint(1, make_spec(ip_adapter=use("face", 1)), None)
    assert caught.value.field == "ip_adapter_image"


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (break_layer, r"a matrix of the shape \(3, 3\) for layer 0, expected \(16, 32\)"),
        (take_layer, r"a matrix of the shape \(0,\) for layer 0, expected \(16, 32\)"),
        (break_number, "NaN or infinity"),
        (add_layer, r"matrices for \d+.5 layers, expected for \d+"),
        (add_face, r"found the tensor lora.0.down.weight, expected tensors of an image_proj"),
        (break_encoder, "no tensor for weights of image_encoder, expected one of the shape"),
        (change_encoder, "an image encoder that gives vectors of width 40, expected width 24"),
        (change_tokens, "tokens of width|files of another form"),
        (break_file, "files of another form, expected an IP adapter and its image encoder"),
        (add_adapter, "2 safetensors files beside the image encoder, expected one"),
        (drop_encoder, "0 image encoders .* expected one"),
    ],
)
def test_adapter_that_does_not_fit_is_refused(
    tmp_path: Path, harm: Callable[[Path], None], reason: str
) -> None:
    unet = random_unet(SHAPES["attention"])
    write_random_ip_adapter(tmp_path / "bad", unet)
    harm(tmp_path / "bad")
    named = Named(AddOn(id="bad", type="ip_adapter", source=tmp_path / "bad"), "key")
    with pytest.raises(errors.AddOnMisfit) as caught:
        IpAdapters(unet, Lru(0, Uses())).get(named)
    assert caught.value.field == "ip_adapter_id"
    assert caught.value.detail.startswith("The IP adapter bad does not fit this model: found ")
    assert re.search(reason, caught.value.detail), caught.value.detail
    assert str(tmp_path) not in caught.value.detail


async def test_adapter_that_does_not_fit_fails_its_job_alone(
    painter: WeavePainter, known: dict[str, AddOn], tmp_path: Path, make_spec: MakeSpec
) -> None:
    write_random_ip_adapter(tmp_path / "bad", random_unet(SHAPES["attention"]))
    break_number(tmp_path / "bad")
    known["bad"] = AddOn(id="bad", type="ip_adapter", source=tmp_path / "bad")
    bad, fine = await asyncio.gather(
        painter.paint(1, make_spec(ip_adapter=use("bad", 1)), inputs(1)),
        painter.paint(2, make_spec(), None),
        return_exceptions=True,
    )
    assert isinstance(fine, Pictures)
    assert isinstance(bad, errors.AddOnMisfit)


def test_denoiser_without_layers_for_it_refuses(known: dict[str, AddOn]) -> None:
    adapters = IpAdapters(torch.nn.Linear(1, 1), Lru(0, Uses()))
    with pytest.raises(errors.InvalidRequest) as caught:
        adapters.get(Named(known["face"], "key"))
    assert caught.value.field == "ip_adapter_id"


@pytest.mark.slow
async def test_adapters_leave_for_others_unless_they_are_at_work(
    entry: ModelEntry,
    add_ons: AddOns,
    adapters: dict[str, Path],
    canvas: Canvas,
    make_spec: MakeSpec,
) -> None:
    config = CPU.model_copy(update={"ip_adapter_bytes": 0})
    stingy = WeavePainter(entry, config, load_checkpoint(entry, config), add_ons)
    specs = [make_spec(ip_adapter=use(name, 1.0), seed=3) for name in ("face", "style", "face")]
    alone = [await stingy.paint(1, spec, inputs(3)) for spec in specs]
    held = len(stingy._checkpoint.variants._ip_adapters._loaded._things)
    woven = await asyncio.gather(*(stingy.paint(1, spec, inputs(3)) for spec in specs))
    stingy.close()
    assert held == 1
    for spec, *made in zip(specs, woven, alone, strict=True):
        stock = Stock(entry.path, adapters).paint(spec, canvas).permute(1, 2, 0)
        expected = (stock.numpy() * 255).round()
        assert all(np.abs(pixels(one) - expected).max() <= 1 for one in made)
