"""Previews: what steps say of the picture, the colours of latents, and what watching changes."""

import asyncio
import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from PIL import Image

from serve_app.config import EngineConfig
from serve_app.images.codec import encode
from serve_app.images.outpaint import grow
from serve_app.models import ModelEntry
from serve_app.pipelines.colours import Colours
from serve_app.pipelines.compose import Canvas
from serve_app.pipelines.estimate import seen
from serve_app.pipelines.previews import Preview, framed
from serve_app.pipelines.samplers.names import SAMPLERS
from serve_app.pipelines.samplers.schedulers import Schedulers
from serve_app.testing.painter import load_painter
from serve_app.types import Kind, Outpaint, PreparedImages
from tests.builders import spec

DEMO = Path(__file__).parents[2] / "checkpoints" / "demo-inpaint"
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ASKED = {"height": 256, "width": 256, "prompt": "a red circle on a blue background", "steps": 20}


def run(scheduler, base, kind):
    """Denoise with a denoiser that knows the picture; return the picture and all estimates."""
    generator = torch.Generator().manual_seed(1)
    picture, noise = (torch.randn(1, 4, 8, 8, generator=generator) for _ in range(2))
    found = []
    scheduler.set_timesteps(10)
    sample = noise * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        level = float(timestep)  # of some it lies between two of the base's
        low = int(level)
        shares = base.alphas_cumprod[[low, min(low + 1, 999)]].log()
        share = shares.lerp(shares.flip(0), level - low)[0].exp()
        signal, spread = share**0.5, (1 - share) ** 0.5
        eps = (scheduler.scale_model_input(sample, timestep) - signal * picture) / spread
        prediction = {
            "epsilon": eps,
            "v_prediction": signal * eps - spread * picture,
            "sample": picture,
        }[kind]
        with seen(scheduler, found.append):
            sample = scheduler.step(prediction, timestep, sample, return_dict=False)[0]
    return picture, found


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_each_sampler_tells_the_picture_that_the_denoiser_knows(name, kind):
    base = DDIMScheduler(prediction_type=kind, timestep_spacing="trailing", **BETAS)
    scheduler = Schedulers(base).make(spec(scheduler=name, steps=10, use_karras_sigmas=True))
    picture, found = run(scheduler, base, kind)
    assert len(found) >= 9
    for estimate in found[2:]:  # before there is next to no picture in the sample
        off = (estimate.clean() - picture).abs().max()
        assert off < 0.15, (type(scheduler).__name__, estimate.index)


def test_flow_matching_tells_the_picture_too():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    generator = torch.Generator().manual_seed(1)
    picture, noise = (torch.randn(1, 4, 8, 8, generator=generator) for _ in range(2))
    found = []
    scheduler.set_timesteps(10)
    sample = noise
    with seen(scheduler, found.append):
        for timestep in scheduler.timesteps:
            sample = scheduler.step(noise - picture, timestep, sample, return_dict=False)[0]
    assert "step" not in vars(scheduler), "it would hold the tensors of the last steps"
    assert len(found) == 10
    for estimate in found:
        assert torch.allclose(estimate.clean(), picture, atol=1e-4)


@pytest.fixture(scope="module")
def painter():
    torch.set_num_threads(1)
    entry = ModelEntry(id="demo", source=DEMO, kinds=tuple(Kind), native_size_px=256)
    painter = load_painter(entry, EngineConfig(device="cpu", measure_rows=False))
    yield painter
    painter.close()


async def watch(painter, asked, images=None, sights=None):
    """Paint a job that somebody watches; return its picture and the previews by step."""
    task = asyncio.create_task(painter.paint(1, asked, images))
    shown, sights = {}, [] if sights is None else sights
    while not task.done():
        for sight in painter.look({1: max(shown, default=-1)}).values():
            sights.append(sight)
            if sight.preview:
                shown[sight.preview_step] = sight.preview
        await asyncio.sleep(0.01)
    (picture,) = (await task).pictures
    return Image.open(io.BytesIO(picture.data)).convert("RGB"), shown


def mean_off(image, preview, cells=16):
    """Return the mean difference of two pictures in grey levels, at the size of the latents."""
    first, second = (
        np.asarray(one.convert("RGB").resize((cells, cells), Image.Resampling.BOX), float)
        for one in (image, Image.open(io.BytesIO(preview)))
    )
    return np.abs(first - second).mean()


async def test_previews_come_near_the_picture(painter):
    image, shown = await watch(painter, spec(**ASKED))
    steps = sorted(shown)
    assert len(steps) >= 3
    assert all(after - before >= 2 for before, after in pairwise(steps))
    assert max(Image.open(io.BytesIO(shown[steps[-1]])).size) == 256
    offs = [mean_off(image, shown[step]) for step in steps]
    assert offs[-1] < 20, offs
    assert offs[-1] < offs[0], offs


def check_order(sights, steps):
    """Steps and previews only go forward, against one total."""
    begun = [sight for sight in sights if sight.steps]
    assert {sight.steps for sight in begun} == {steps}
    for before, after in pairwise(sights):
        assert before.step <= after.step
        assert before.preview_step <= after.preview_step
    assert max(sight.step for sight in sights) >= steps - 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheduler", "steps"),
    [("DDIMScheduler", 8 + 4), ("HeunDiscreteScheduler", 15 + 7)],
    ids=["first order", "second order"],
)
async def test_second_pass_of_a_highres_fix_counts_on(painter, scheduler, steps):
    sights = []
    asked = spec(**ASKED | {"height": 384, "width": 384, "steps": 8, "scheduler": scheduler})
    asked = asked.model_copy(update={"highres_fix": True})
    _, shown = await watch(painter, asked, None, sights)
    check_order(sights, steps)
    assert max(shown) > steps * 2 / 3  # of the second pass
    assert min(shown) < steps * 2 / 3


async def test_windows_of_a_picture_that_grows_count_on(painter):
    room = {"left": 0, "top": 0, "bottom": 0, "overlap_px": 16, "multiple_px": 8}
    grown = Outpaint(right=768, **room, max_side_px=2048, max_area_px=2**22)
    pictures = grow(Image.new("RGB", (256, 256), "blue"), None, grown)
    init, mask = (encode(picture) for picture in pictures)
    asked = spec(**ASKED | {"steps": 6}, kind=Kind.INPAINT, strength=1.0, outpaint=grown, samples=1)
    sights = []
    _, shown = await watch(painter, asked, PreparedImages(init=init, mask=mask), sights)
    num_windows = max(sight.steps for sight in sights) // 6
    assert num_windows >= 2
    check_order(sights, 6 * num_windows)
    assert max(shown) > 6  # of later windows too


@pytest.mark.slow
async def test_watching_does_not_change_the_picture(painter):
    watched, shown = await watch(painter, spec(**ASKED))
    (picture,) = (await painter.paint(2, spec(**ASKED), None)).pictures
    assert shown
    plain = Image.open(io.BytesIO(picture.data)).convert("RGB")
    assert plain.tobytes() == watched.tobytes()


async def test_nobody_watches_and_nothing_is_computed(painter, monkeypatch):
    made = []
    monkeypatch.setattr(Preview, "_make", lambda *args: made.append(args))
    task = asyncio.create_task(painter.paint(3, spec(**ASKED), None))
    while not task.done():
        painter.look({3: None})
        await asyncio.sleep(0.005)
    await task
    assert made == []


def test_map_of_the_demo_models_vae_tells_the_colours_of_its_pictures(painter):
    vae = painter._checkpoint.vaes.own.module
    fields = torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(9))
    picture = torch.nn.functional.interpolate(fields, (256, 256), mode="bilinear")
    with torch.inference_mode():
        latents = vae.encode(2 * picture - 1).latent_dist.mode()
        decoded = vae.decode(latents).sample / 2 + 0.5
    cell_px = 256 // latents.shape[-1]
    cells = torch.nn.functional.avg_pool2d(decoded, cell_px)[0].permute(1, 2, 0).clamp(0, 1)
    off = (Colours(vae).of(latents[0] * vae.config.scaling_factor) - cells).abs().mean() * 255
    plain = (cells - cells.mean((0, 1))).abs().mean() * 255  # what one colour all over is off by
    assert off < plain / 2


def test_map_is_fitted_once(painter):
    colours = Colours(painter._checkpoint.vaes.own.module)
    latents = torch.zeros(4, 8, 8)
    first = colours.of(latents)
    colours._vae = None  # what is not there cannot be asked again
    assert torch.equal(colours.of(latents), first)


def test_preview_of_a_crop_stands_in_the_picture_that_is_inpainted():
    init = Image.new("RGB", (512, 256), "blue")
    mask = Image.new("L", (512, 256))
    mask.paste(255, (256, 0, 384, 128))
    canvas = Canvas(init, mask, (256, 0, 512, 256))
    made = np.asarray(framed(Image.new("RGB", (32, 32), "red"), (256, 256), canvas, 256))
    assert made.shape == (128, 256, 3)
    assert (made[:60, 132:188] == (255, 0, 0)).all()
    assert (made[68:] == (0, 0, 255)).all()
    assert (made[:, :124] == (0, 0, 255)).all()
