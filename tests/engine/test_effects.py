"""Self-attention guidance, panoramas and the highres fix, in company of requests without."""

import asyncio
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from serve_app.config import EngineConfig
from serve_app.engine.engine import Engine
from serve_app.engine.request import Progress, Request
from serve_app.models import ModelEntry
from serve_app.pipelines import work
from serve_app.pipelines.addons.lookup import NamedAddOns
from serve_app.pipelines.checkpoint import Checkpoint
from serve_app.pipelines.compose import Canvas
from serve_app.pipelines.guidance import Perturbation
from serve_app.pipelines.loader import load_checkpoint
from serve_app.pipelines.painter import WeavePainter
from serve_app.pipelines.specs import window_starts
from serve_app.pipelines.work import Painting, Sample
from serve_app.types import GenerationSpec, Kind, Pictures

TOLERANCE = 1e-4  # of a value in [0, 1], float32
NATIVE_PX = 64
CPU = EngineConfig(
    device="cpu",
    measure_rows=False,
    channels_last=False,  # as stock; it rounds otherwise, by up to 2e-4 over a wide picture
    panorama_overlap=0.875,
    panorama_windows=3,
)
GUIDED = {
    Kind.TEXT2IMG: diffusers.StableDiffusionPAGPipeline,
    Kind.IMG2IMG: diffusers.StableDiffusionPAGImg2ImgPipeline,
    Kind.INPAINT: diffusers.StableDiffusionPAGInpaintPipeline,
}

MakeSpec = Callable[..., GenerationSpec]


@pytest.fixture(scope="module")
def load(folder: Callable[[str], Path]) -> Callable[..., Checkpoint]:
    loaded: dict[tuple[str, int], Checkpoint] = {}

    def load(name: str, native_px: int = NATIVE_PX) -> Checkpoint:
        if (name, native_px) not in loaded:
            entry = ModelEntry(
                id="random", source=folder(name), kinds=tuple(Kind), native_size_px=native_px
            )
            loaded[name, native_px] = load_checkpoint(entry, CPU)
        return loaded[name, native_px]

    return load


@pytest.fixture(scope="module")
def painter(folder: Callable[[str], Path]) -> Iterator[WeavePainter]:
    entry = ModelEntry(
        id="random", source=folder("attention"), kinds=tuple(Kind), native_size_px=NATIVE_PX
    )
    painter = WeavePainter(entry, CPU, load_checkpoint(entry, CPU))
    yield painter
    painter.close()


def weave(
    checkpoint: Checkpoint, specs: list[GenerationSpec], canvas: Canvas | None = None
) -> tuple[list[torch.Tensor], Engine]:
    """Paint all specs together."""
    engine = Engine(CPU, checkpoint.variants.activate)
    futures = []
    for spec in specs:
        inputs = None if spec.kind is Kind.TEXT2IMG else canvas
        size = (spec.height, spec.width)
        scheduler = checkpoint.schedulers.make(spec)
        variant = checkpoint.variants.of(spec, NamedAddOns())
        body = Sample(checkpoint, spec, inputs, size, scheduler, variant, Progress())
        futures.append(engine.submit(Request(body, variant=variant)))
    paintings = [future.result(60) for future in futures]
    engine.close()
    return [item.image for item in paintings if isinstance(item, Painting)], engine


def stock(
    cls: type[DiffusionPipeline], folder: Path, spec: GenerationSpec, **arguments: object
) -> torch.Tensor:
    """Paint with diffusers alone."""
    pipeline = cls.from_pretrained(folder, safety_checker=None)
    pipeline.scheduler = getattr(diffusers, spec.scheduler).from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    result = pipeline(
        prompt=spec.prompt,
        num_inference_steps=spec.steps,
        guidance_scale=spec.guidance_scale,
        generator=torch.Generator().manual_seed(spec.seed),
        output_type="pt",
        **arguments,
    )
    return result.images[0]


def worst(image: torch.Tensor, other: torch.Tensor) -> float:
    return float((image - other).abs().max())


def pixels(pictures: Pictures) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(pictures.pictures[0].data))).astype(int)


@pytest.mark.slow
@pytest.mark.parametrize("guidance_scale", [5.0, 1.0])
@pytest.mark.parametrize("kind", list(Kind))
def test_self_attention_equals_the_stock_pipeline_of_every_kind(
    kind: Kind,
    guidance_scale: float,
    load: Callable[..., Checkpoint],
    folder: Callable[[str], Path],
    canvas: Canvas,
    make_spec: MakeSpec,
) -> None:
    spec = make_spec(
        kind=kind, self_attention=True, strength=0.8, steps=5, guidance_scale=guidance_scale
    )
    guided, _ = weave(load("attention"), [spec], canvas)
    inputs: dict[str, object] = {"height": 64, "width": 64}
    if kind is not Kind.TEXT2IMG:
        inputs = {"image": canvas.init, "strength": 0.8}
    if kind is Kind.INPAINT:
        inputs["mask_image"] = canvas.mask
    expected = stock(GUIDED[kind], folder("attention"), spec, pag_scale=3.0, **inputs)
    assert worst(guided[0], expected) <= TOLERANCE


@pytest.mark.slow
def test_self_attention_changes_no_neighbour_and_shares_forwards(
    load: Callable[..., Checkpoint], make_spec: MakeSpec
) -> None:
    checkpoint = load("attention")
    plain = [make_spec(seed=seed, steps=6) for seed in range(2)]
    guided = [spec.model_copy(update={"self_attention": True}) for spec in plain]
    guided[1] = guided[1].model_copy(update={"guidance_scale": 1.0})
    together, engine = weave(checkpoint, plain + guided)
    for spec, image in zip(plain + guided, together, strict=True):
        alone, _ = weave(checkpoint, [spec])
        assert worst(image, alone[0]) <= TOLERANCE
    assert worst(together[0], together[2]) > 0.01
    assert engine.snapshot().forwards < 4 * 6


@pytest.mark.slow
@pytest.mark.parametrize("guidance_scale", [5.0, 1.0])
def test_panorama_equals_the_stock_pipeline(
    guidance_scale: float,
    load: Callable[..., Checkpoint],
    folder: Callable[[str], Path],
    make_spec: MakeSpec,
) -> None:
    spec = make_spec(
        height=512, width=704, steps=2, panorama=True, guidance_scale=guidance_scale
    )  # the stock one knows windows of 512 pixels only
    image, _ = weave(load("plain", 512), [spec])
    cls = diffusers.StableDiffusionPanoramaPipeline
    expected = stock(cls, folder("plain"), spec, height=512, width=704)
    assert worst(image[0], expected) <= TOLERANCE


def test_self_attention_is_possible_where_a_middle_block_has_it(
    load: Callable[..., Checkpoint],
) -> None:
    assert Perturbation(load("attention").base.unet).is_possible
    assert not Perturbation(torch.nn.Identity()).is_possible


@pytest.mark.slow
def test_panorama_differs_from_a_wide_picture_and_shares_forwards(
    load: Callable[..., Checkpoint], make_spec: MakeSpec
) -> None:
    checkpoint = load("attention")
    wide = make_spec(width=128, scheduler="DPMSolverMultistepScheduler")
    specs = [wide.model_copy(update={"panorama": True}), wide, make_spec()]
    images, engine = weave(checkpoint, specs)
    assert images[0].shape == (3, 64, 128)
    assert worst(images[0], images[1]) > 0.01
    alone, _ = weave(checkpoint, specs[:1])
    assert worst(images[0], alone[0]) <= TOLERANCE
    assert engine.snapshot().rows_per_forward > 2


@pytest.mark.parametrize(
    ("length", "window", "overlap", "expected"),
    [
        pytest.param(64, 64, 0.75, [0], id="one"),
        pytest.param(40, 64, 0.75, [0], id="smaller"),
        pytest.param(96, 64, 0.75, [0, 16, 32], id="even"),
        pytest.param(90, 64, 0.75, [0, 16, 26], id="last-ends-at-the-edge"),
        pytest.param(100, 64, 0.0, [0, 36], id="none-more-than-needed"),
        pytest.param(10, 8, 0.99, [0, 1, 2], id="stride-of-one"),
    ],
)
def test_windows_cover_a_side(
    length: int, window: int, overlap: float, expected: list[int]
) -> None:
    assert window_starts(length, window, overlap) == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", ["attention", "inpaint"])
def test_highres_fix_refines_what_was_painted_at_the_native_size(
    name: str, load: Callable[..., Checkpoint], make_spec: MakeSpec
) -> None:
    checkpoint = load(name)
    large = make_spec(height=128, width=128, steps=6)
    fixed = large.model_copy(update={"highres_fix": True})
    images, _ = weave(checkpoint, [large, fixed, make_spec(steps=6)])
    assert images[1].shape == (3, 128, 128)
    assert worst(images[0], images[1]) > 0.01
    checkpoint.config = CPU.model_copy(update={"highres_strength": 0.01})  # one step of six
    gentle, _ = weave(checkpoint, [fixed])
    checkpoint.config = CPU
    small = torch.nn.functional.interpolate(images[2][None], (128, 128), mode="bicubic")[0]
    distances = [float((image - small).abs().mean()) for image in (gentle[0], images[0])]
    assert distances[0] < distances[1]


def test_picture_between_the_passes_overshoots_nowhere() -> None:
    """Bicubic weights would go beyond black and white beside an edge."""
    edge = torch.zeros(3, 8, 8)
    edge[..., 4:] = 1
    large = work._enlarge(edge.half(), (16, 32))
    assert (large.shape, large.dtype) == ((1, 3, 16, 32), torch.float16)
    assert (large.min(), large.max()) == (0, 1)
    assert large[..., 15].unique().item() < 0.5 < large[..., 16].unique().item()


@pytest.mark.slow
def test_first_pass_of_another_shape_is_what_the_stock_pipeline_paints(
    folder: Callable[[str], Path], load: Callable[..., Checkpoint], make_spec: MakeSpec
) -> None:
    """Latents of 27 x 36 cells: three times halved and doubled, odd at each level."""
    checkpoint = load("deep", 256)
    spec = make_spec(height=384, width=512, steps=2, highres_fix=True)
    checkpoint.config = CPU.model_copy(update={"highres_strength": 1e-6})
    images, _ = weave(checkpoint, [spec])
    checkpoint.config = CPU
    small = stock(
        diffusers.StableDiffusionPipeline, folder("deep"), spec, height=216, width=288
    )  # fmt: skip
    large = torch.nn.functional.interpolate(small[None], (384, 512), mode="bicubic", antialias=True)
    refined = diffusers.StableDiffusionImg2ImgPipeline.from_pretrained(
        folder("deep"), safety_checker=None
    )
    refined.scheduler = diffusers.DDIMScheduler.from_config(refined.scheduler.config)
    refined.set_progress_bar_config(disable=True)
    expected = refined(
        prompt=spec.prompt,
        image=large.clamp(0, 1),
        strength=0.5 + 1e-6,  # one of the two steps
        num_inference_steps=spec.steps,
        guidance_scale=spec.guidance_scale,
        generator=torch.Generator().manual_seed(spec.seed),
        output_type="pt",
    ).images[0]
    assert images[0].shape == (3, 384, 512)
    assert worst(images[0], expected) <= 2e-3


@pytest.mark.slow
async def test_highres_fix_tells_both_passes_and_its_progress_grows(
    painter: WeavePainter, make_spec: MakeSpec
) -> None:
    spec = make_spec(height=128, width=128, highres_fix=True, steps=20)
    task = asyncio.create_task(painter.paint(1, spec, None))
    seen: list[float] = []
    while not task.done():
        seen += painter.progress().values()
        await asyncio.sleep(0.001)
    assert (await task).ran == {"first_pass": [64, 64]}
    assert seen == sorted(seen)
    assert seen[-1] > 0.5


async def test_highres_fix_makes_the_second_scheduler_for_the_second_pass(
    painter: WeavePainter, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[GenerationSpec] = []
    schedulers = painter._checkpoint.schedulers
    make = schedulers.make
    monkeypatch.setattr(schedulers, "make", lambda spec: asked.append(spec) or make(spec))
    spec = make_spec(height=128, width=128, highres_fix=True, steps=10, scheduler="PNDMScheduler")
    await painter.paint(1, spec, None)
    config = painter._checkpoint.config
    assert [(one.kind, one.strength) for one in asked] == [
        (Kind.TEXT2IMG, 1.0),
        (Kind.IMG2IMG, config.highres_strength),
    ]


async def test_second_pass_of_one_step_is_of_a_longer_schedule(
    painter: WeavePainter, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The only step of a schedule begins with noise alone: nothing of the first pass is left."""
    asked: list[GenerationSpec] = []
    schedulers = painter._checkpoint.schedulers
    make = schedulers.make
    monkeypatch.setattr(schedulers, "make", lambda spec: asked.append(spec) or make(spec))
    result = await painter.paint(
        1, make_spec(height=128, width=128, highres_fix=True, steps=1), None
    )
    assert [(one.kind, one.steps) for one in asked] == [(Kind.TEXT2IMG, 1), (Kind.IMG2IMG, 2)]
    assert asked[1].strength * asked[1].steps < 2
    assert result.ran["first_pass"] == [64, 64]


@pytest.mark.parametrize("effect", ["highres_fix", "panorama"])
async def test_effect_on_a_picture_of_the_native_size_says_that_it_did_nothing(
    painter: WeavePainter, make_spec: MakeSpec, effect: str
) -> None:
    plain = await painter.paint(1, make_spec(), None)
    result = await painter.paint(2, make_spec(**{effect: True}), None)
    assert result.ran == {effect: "no"}
    assert np.abs(pixels(plain) - pixels(result)).max() <= 1


@pytest.mark.slow
async def test_effects_work_together(painter: WeavePainter, make_spec: MakeSpec) -> None:
    spec = make_spec(
        height=128, width=192, steps=1,
        panorama=True, self_attention=True, highres_fix=True, tomesd=True,
    )  # fmt: skip
    result = await painter.paint(1, spec, None)
    assert pixels(result).shape == (128, 192, 3)
    assert result.ran == {"highres_fix": "no"}
