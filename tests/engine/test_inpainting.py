"""Every mask option through a real painter: black stays exact, alone and beside other requests."""

import asyncio
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from serve_app.config import EngineConfig, ImagesConfig
from serve_app.images.prepare import prepare
from serve_app.models import AddOn, ModelEntry
from serve_app.pipelines.addons.lookup import AddOns
from serve_app.pipelines.loader import load_checkpoint
from serve_app.pipelines.painter import WeavePainter
from serve_app.testing.controlnets import random_controlnet
from serve_app.types import (
    ControlNetUse,
    GenerationSpec,
    Kind,
    LoraUse,
    Outpaint,
    Pictures,
    PreparedImages,
)
from tests.engine.lora_files import kohya, make, save
from tests.engine.test_families import make_xl

SIDE = 96
NATIVE = 64
CONFIG = EngineConfig(
    device="cpu", measure_rows=False, max_rows=8, crop_padding_px=8, outpaint_window=1.5
)
RANDOM = np.random.default_rng(5)
INIT = Image.fromarray(RANDOM.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))


def blob(*, soft: bool) -> Image.Image:
    """A disc in the middle that fades over 24 pixels, or not at all."""
    away = np.hypot(*(np.indices((SIDE, SIDE)) - SIDE // 2))
    shades = np.clip((36 - away) / 24, 0, 1) * 255 if soft else (away < 24) * 255
    return Image.fromarray(shades.round().astype(np.uint8))


OPTIONS: dict[str, dict[str, object]] = {
    "plain": {},
    "hard": {"masking": {"mode": "hard"}},
    "soft": {"masking": {"mode": "soft"}},
    "inverted": {"masking": {"invert": True}},
    "grown": {"masking": {"expand_px": 7}},
    "shrunk": {"masking": {"expand_px": -7}},
    "blurred": {"masking": {"blur_px": 10}},
    "blurred hard": {"masking": {"blur_px": 10, "mode": "hard"}},
    "noise": {"fill": "noise"},
    "blur": {"fill": "blur"},
    "telea": {"fill": "telea"},
    "ns": {"fill": "ns"},
    "padding": {"padding_px": 0},
    "only masked": {"only_masked": True, "padding_px": 0, "masking": {"expand_px": -12}},
    "full frame": {"full_frame": True},
    "few steps": {"strength": 0.25, "masking": {"mode": "soft"}},
}


@pytest.fixture(scope="module", params=["plain", "inpaint", "xl"])
def painter(
    request: pytest.FixtureRequest,
    folder: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[WeavePainter]:
    """A painter with a LoRA and a ControlNet."""
    root = tmp_path_factory.mktemp(request.param)
    if request.param == "xl":
        torch.manual_seed(5)
        make_xl().save_pretrained(source := root / "model")
    else:
        source = folder(request.param)
    entry = ModelEntry(id="random", source=source, kinds=tuple(Kind), native_size_px=NATIVE)
    checkpoint = load_checkpoint(entry, CONFIG)
    unet = checkpoint.base.unet
    cell_px = 2 if request.param == "xl" else 8
    random_controlnet(unet, 1, cell_px).save_pretrained(root / "net")
    layer = next(name for name, _ in unet.named_modules() if name.endswith("attn2.to_q"))
    save(kohya(make(checkpoint.base, {"unet": (layer,)})), root / "lora.safetensors")
    known = [
        AddOn(id="net", type="controlnet", source=root / "net", models=("random",)),
        AddOn(id="lora", type="lora", source=root / "lora.safetensors", models=("random",)),
    ]
    add_ons = AddOns("random", lambda id_, _: next((one for one in known if one.id == id_), None))
    painter = WeavePainter(entry, CONFIG, checkpoint, add_ons)
    yield painter
    painter.close()


@pytest.fixture
def spec_of(make_spec: Callable[..., GenerationSpec]) -> Callable[..., GenerationSpec]:
    def make(**changes: object) -> GenerationSpec:
        size = {"height": SIDE, "width": SIDE, "strength": 0.8, "steps": 5}
        return make_spec(**({"kind": Kind.INPAINT, "guidance_scale": 3.0} | size | changes))

    return make


def file(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def inputs(spec: GenerationSpec, mask: Image.Image | None) -> PreparedImages:
    """Prepare the pictures of a job as Preprocess does."""
    data = None if mask is None else file(mask)
    images = prepare(file(INIT), data, spec, ImagesConfig())
    if spec.controlnets:
        images = PreparedImages(images.init, images.mask, controls=(images.init,))
    return images


def opened(picture: object) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture.data)))


def changed(images: PreparedImages, result: Pictures, index: int = 0) -> np.ndarray:
    return (opened(result.pictures[index]) != opened(images.init)).any(axis=-1)


@pytest.mark.slow
@pytest.mark.parametrize("is_soft", [False, True], ids=["hard-mask", "soft-mask"])
@pytest.mark.parametrize("option", OPTIONS)
async def test_black_of_a_mask_stays_exact_with_every_option(
    painter: WeavePainter, spec_of: Callable[..., GenerationSpec], option: str, is_soft: bool
) -> None:
    spec = spec_of(**OPTIONS[option])
    images = inputs(spec, blob(soft=is_soft))
    result = await painter.paint(1, spec, images)
    shades = opened(images.mask)
    is_changed = changed(images, result)
    assert not is_changed[shades == 0].any()
    assert is_changed[shades == shades.max()].mean() > 0.9
    mode = spec.masking.mode
    is_faded = bool(spec.masking.blur_px) and mode != "hard"
    assert (result.ran.get("mask_mode") == "soft") == (is_faded or (is_soft and mode != "hard"))


@pytest.mark.slow
async def test_options_with_lora_and_controlnet_alone_equal_those_in_any_batch(
    painter: WeavePainter, spec_of: Callable[..., GenerationSpec]
) -> None:
    added = {
        "loras": (LoraUse(id="lora", strength=0.8),),
        "controlnets": (ControlNetUse(id="net", scale=0.7),),
    }
    work = [
        (spec, inputs(spec, blob(soft=number % 2 == 0)))
        for number, option in enumerate(OPTIONS)
        for spec in [spec_of(seed=number, **OPTIONS[option], **(added if number % 3 else {}))]
    ]
    alone = [await painter.paint(1, *one) for one in work]
    together = await asyncio.gather(*(painter.paint(1, *one) for one in work))
    for (_, images), first, second in zip(work, alone, together, strict=True):
        apart = np.abs(opened(first.pictures[0]).astype(int) - opened(second.pictures[0]))
        assert apart.max() <= 1
        shades = opened(images.mask)
        assert not changed(images, second)[shades == 0].any()


@pytest.mark.slow
async def test_lora_and_controlnet_change_what_a_soft_mask_lets_change(
    painter: WeavePainter, spec_of: Callable[..., GenerationSpec]
) -> None:
    spec = spec_of()
    images = inputs(spec, blob(soft=True))
    plain = opened((await painter.paint(1, spec, images)).pictures[0])
    for added in (
        {"loras": (LoraUse(id="lora", strength=0.8),)},
        {"controlnets": (ControlNetUse(id="net", scale=0.7),)},
    ):
        spec = spec_of(**added)
        other = await painter.paint(1, spec, inputs(spec, blob(soft=True)))
        assert (opened(other.pictures[0]) != plain).any()


def plan(**changes: object) -> Outpaint:
    values = {"overlap_px": 8, "multiple_px": 8, "max_side_px": 2048, "max_area_px": 2048**2}
    return Outpaint.model_validate(values | changes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sides", "num_windows"),
    [
        pytest.param({"left": 24}, 1, id="a-little-left"),
        pytest.param({"right": SIDE}, None, id="twice-the-width"),
        pytest.param({"left": 40, "top": 40, "right": 40, "bottom": 40}, None, id="all-sides"),
        pytest.param({"bottom": 296}, None, id="far-down"),
    ],
)
async def test_picture_that_grows_keeps_what_it_was(
    painter: WeavePainter,
    spec_of: Callable[..., GenerationSpec],
    sides: dict[str, int],
    num_windows: int | None,
) -> None:
    spec = spec_of(strength=1.0, samples=2, outpaint=plan(**sides), fill="blur")
    images = inputs(spec, None)
    before = painter.snapshot().succeeded
    result = await painter.paint(1, spec, images)
    num_painted = painter.snapshot().succeeded - before
    width = SIDE + sides.get("left", 0) + sides.get("right", 0)
    height = SIDE + sides.get("top", 0) + sides.get("bottom", 0)
    assert [(one.width, one.height) for one in result.pictures] == [(width, height)] * 2
    assert (result.ran["W"], result.ran["H"]) == (width, height)
    shades = opened(images.mask)
    for index in range(2):
        is_changed = changed(images, result, index)
        assert not is_changed[shades == 0].any()
        assert is_changed[shades == 255].mean() > 0.98, "everything that is new is painted"
    assert num_painted == 2 * num_windows if num_windows else num_painted >= 2 * 2
    left, top = sides.get("left", 0), sides.get("top", 0)
    old = opened(result.pictures[0])[top : top + SIDE, left : left + SIDE]
    inner = slice(8, SIDE - 8)
    assert (old[inner, inner] == np.asarray(INIT)[inner, inner]).all()


@pytest.mark.slow
async def test_growing_pictures_share_forwards_and_change_nothing_of_others(
    painter: WeavePainter, spec_of: Callable[..., GenerationSpec]
) -> None:
    grown = spec_of(seed=3, outpaint=plan(right=SIDE), fill="noise")
    plain = spec_of(seed=4)
    work = [(grown, inputs(grown, None)), (plain, inputs(plain, blob(soft=False)))]
    alone = [await painter.paint(1, *one) for one in work]
    together = await asyncio.gather(*(painter.paint(job, *one) for job, one in enumerate(work)))
    for first, second in zip(alone, together, strict=True):
        apart = np.abs(opened(first.pictures[0]).astype(int) - opened(second.pictures[0]))
        assert apart.max() <= 1


@pytest.mark.slow
async def test_progress_of_a_growing_picture_only_rises(
    painter: WeavePainter, spec_of: Callable[..., GenerationSpec]
) -> None:
    spec = spec_of(outpaint=plan(right=2 * SIDE))
    task = asyncio.ensure_future(painter.paint(7, spec, inputs(spec, None)))
    seen = [0.0]
    while not task.done():
        seen.append(painter.progress().get(7, seen[-1]))
        await asyncio.sleep(0.001)
    await task
    assert seen == sorted(seen)


@pytest.mark.slow
@pytest.mark.parametrize("shade", [16, 128, 254])
async def test_one_grey_all_over_changes_all(
    painter: WeavePainter, spec_of: Callable[..., GenerationSpec], shade: int
) -> None:
    spec = spec_of(masking={"mode": "soft"}, strength=0.25)
    images = inputs(spec, Image.new("L", (SIDE, SIDE), shade))
    result = await painter.paint(1, spec, images)
    assert result.ran.get("mask_mode") == ("soft" if shade < 240 else None), "254 is white"
    assert changed(images, result).mean() > 0.5
