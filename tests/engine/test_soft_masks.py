"""Soft masks: equal to the definition of differential diffusion for every family, in any batch.

The definition is written out here over the stock image-to-image pipelines, which know no masks:
before step i of n, whatever has a shade below 1 - i/n is put back to the original with the noise of
that step. With the same seed they draw the same noise as the inpainting pipelines do.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
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
from serve_app.pipelines.addons.variants import Variant
from serve_app.pipelines.checkpoint import Checkpoint
from serve_app.pipelines.compose import Canvas
from serve_app.pipelines.loader import load_checkpoint
from serve_app.pipelines.work import Painting, Sample
from serve_app.types import GenerationSpec, Kind
from tests.engine.test_families import FAMILIES

TOLERANCE = 1e-4  # of a value in [0, 1], float32
SHADES = (0, 20, 60, 100, 128, 190, 230, 254)  # of columns of 8 pixels
SAMPLERS = {
    "sd": (
        "DDIMScheduler",
        "EulerDiscreteScheduler",
        "HeunDiscreteScheduler",
        "DPMSolverMultistepScheduler",
    ),
    "xl": ("DDIMScheduler", "EulerDiscreteScheduler"),
    "sd3": ("EulerDiscreteScheduler",),
    "flux": ("EulerDiscreteScheduler",),
}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine(EngineConfig(max_rows=16, turn_groups=3, measure_rows=False))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def load(
    tmp_path_factory: pytest.TempPathFactory, folder: Callable[[str], Path]
) -> Callable[[str], Checkpoint]:
    """Load a checkpoint of a family, or of a shape of the UNet; each once."""
    loaded: dict[str, Checkpoint] = {}

    def make(name: str) -> Checkpoint:
        if name not in loaded:
            source = tmp_path_factory.mktemp(name) if name in FAMILIES else folder(name)
            if name in FAMILIES:
                torch.manual_seed(5)
                FAMILIES[name]().save_pretrained(source)
            entry = ModelEntry(id="random", source=source, kinds=tuple(Kind))
            loaded[name] = load_checkpoint(entry, EngineConfig(device="cpu"))
        return loaded[name]

    return make


def soft(canvas: Canvas, shades: Sequence[int] = SHADES) -> Canvas:
    columns = np.repeat(np.asarray(shades, np.uint8), 64 // len(shades))
    return Canvas(canvas.init, Image.fromarray(np.tile(columns, (64, 1))), canvas.box)


def request_of(checkpoint: Checkpoint, spec: GenerationSpec, canvas: Canvas) -> Request:
    size = (spec.height, spec.width)
    scheduler = checkpoint.schedulers.make(spec)
    body = Sample(checkpoint, spec, canvas, size, scheduler, Variant(), Progress())
    return Request(body, key=size)


def weave(
    engine: Engine, checkpoint: Checkpoint, work: Sequence[tuple[GenerationSpec, Canvas]]
) -> list[Painting]:
    """Paint together, submitted at random times."""
    futures = []
    for spec, canvas in work:
        futures.append(engine.submit(request_of(checkpoint, spec, canvas)))
        time.sleep(random.random() * 0.01)
    paintings = [future.result(60) for future in futures]
    return [painting for painting in paintings if isinstance(painting, Painting)]


def difference(latents: torch.Tensor, expected: torch.Tensor) -> float:
    return float((latents - expected).abs().max() / max(1.0, float(expected.abs().max())))


def by_definition(checkpoint: Checkpoint, spec: GenerationSpec, canvas: Canvas) -> torch.Tensor:
    """Paint with the stock image-to-image pipeline, putting cells back between its steps.

    Gives latents: decoded, stock pipelines of Stable Diffusion 3 differ, as one forgets the shift.
    """
    pipeline = checkpoint.family.pipelines[Kind.IMG2IMG].from_pipe(checkpoint.base)
    pipeline.scheduler = checkpoint.schedulers.make(spec)
    pipeline.set_progress_bar_config(disable=True)
    original, noise = drawn(pipeline, spec, canvas)
    assert canvas.mask is not None
    scale = int(pipeline.vae_scale_factor)
    cells = np.array(canvas.mask, np.float32).reshape(64 // scale, scale, 64 // scale, scale)
    shade = torch.from_numpy(cells.max((1, 3)) / np.float32(255))  # a cell is as its lightest pixel
    kept = (1 - shade).expand(1, *original.shape[1:])

    def back(running: DiffusionPipeline, step: int, _t: object, state: dict) -> dict:
        steps, latents = running.num_timesteps, state["latents"]
        packed = latents.dim() == 3
        if packed:
            sides = (canvas.init.height, canvas.init.width, scale)
            latents = running._unpack_latents(latents, *sides)
        if step + 1 < steps:
            t = running.scheduler.timesteps[-steps:][step + 1]
            noised = noise_to(running, original, noise, t)
            latents = torch.where(kept > (step + 1) / steps, noised, latents)
        else:
            latents = torch.where(kept == 1, original, latents)
        if packed:
            latents = running._pack_latents(latents, *latents.shape)
        return {"latents": latents}

    options: dict[str, object] = {"strength": spec.strength, "image": canvas.init}
    if "Flux" not in type(pipeline).__name__:
        options["negative_prompt"] = spec.negative_prompt or None
    if "3" in type(pipeline).__name__ or "Flux" in type(pipeline).__name__:
        options |= {"height": spec.height, "width": spec.width}
    return pipeline(
        prompt=spec.prompt,
        num_inference_steps=spec.steps,
        guidance_scale=spec.guidance_scale,
        generator=torch.Generator().manual_seed(spec.seed),
        output_type="latent",
        callback_on_step_end=back,
        **options,
    ).images


def drawn(
    pipeline: DiffusionPipeline, spec: GenerationSpec, canvas: Canvas
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw what a seed draws: the latents of the picture, then noise; both (1, C, h, w)."""
    generator = torch.Generator().manual_seed(spec.seed)
    pixels = torch.from_numpy(np.array(canvas.init, np.float32)) / 127.5 - 1
    vae = pipeline.vae
    latents = vae.encode(pixels.permute(2, 0, 1)[None]).latent_dist.sample(generator)
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    latents = (latents - shift) * vae.config.scaling_factor
    return latents, torch.randn(latents.shape, generator=generator)


def noise_to(
    pipeline: DiffusionPipeline, original: torch.Tensor, noise: torch.Tensor, t: torch.Tensor
) -> torch.Tensor:
    if hasattr(pipeline.scheduler, "scale_noise"):
        return pipeline.scheduler.scale_noise(original, t[None], noise)
    return pipeline.scheduler.add_noise(original, noise, t[None])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "samplers"),
    [
        pytest.param("plain", "sd", id="unet"),
        pytest.param("velocity", "sd", id="v-prediction"),
        pytest.param("demo", "sd", id="trained"),
        *(pytest.param(name, name, id=name) for name in FAMILIES),
    ],
)
@torch.no_grad()
def test_soft_mask_equals_its_definition(
    name: str,
    samplers: str,
    engine: Engine,
    load: Callable[[str], Checkpoint],
    canvas: Canvas,
    make_spec: Callable[..., GenerationSpec],
) -> None:
    rng = random.Random(name)
    work = [
        (
            make_spec(
                kind=Kind.INPAINT,
                scheduler=sampler,
                seed=rng.randrange(2**32),
                steps=rng.randint(4, 9),
                strength=rng.choice([0.5, 0.8, 1.0]),
                guidance_scale=rng.choice([1.0, 4.0]),
                use_karras_sigmas=False,
            ),
            soft(canvas, rng.sample(SHADES, k=8)),
        )
        for sampler in SAMPLERS[samplers] * 2
    ]
    for (spec, inputs), painting in zip(work, weave(engine, load(name), work), strict=True):
        expected = by_definition(load(name), spec, inputs)
        assert difference(painting.latents, expected) <= TOLERANCE, spec.scheduler
    counts = engine.snapshot()
    assert counts.rows > 1.5 * counts.forwards, "the requests did share forwards"


@pytest.mark.parametrize("strength", [0.6, 1.0])
@torch.no_grad()
def test_soft_mask_of_nine_channels_equals_its_definition(
    strength: float,
    engine: Engine,
    load: Callable[[str], Checkpoint],
    canvas: Canvas,
    make_spec: Callable[..., GenerationSpec],
) -> None:
    checkpoint, inputs = load("inpaint"), soft(canvas)
    spec = make_spec(kind=Kind.INPAINT, steps=6, strength=strength, guidance_scale=4.0)
    (painting,) = weave(engine, checkpoint, [(spec, inputs)])
    assert (
        float((painting.image - nine_channels(checkpoint, spec, inputs)).abs().max()) <= TOLERANCE
    )


def nine_channels(checkpoint: Checkpoint, spec: GenerationSpec, canvas: Canvas) -> torch.Tensor:
    """Write out one guided run: the UNet sees white wherever anything may change."""
    base, scale = checkpoint.base, checkpoint.base.vae.config.scaling_factor
    assert canvas.mask is not None
    shade = torch.from_numpy(np.array(canvas.mask, np.float32) / np.float32(255))
    kept = (1 - shade)[None, None, ::8, ::8]
    scheduler = diffusers.DDIMScheduler.from_config(base.scheduler.config)
    scheduler.set_timesteps(spec.steps)
    steps = int(spec.steps * spec.strength)
    times = scheduler.timesteps[-steps:]
    original, noise = drawn(base, spec, canvas)
    generator = torch.Generator().manual_seed(spec.seed)
    if spec.strength < 1:
        torch.randn(original.shape, generator=generator)  # that of the picture's latents
    noise = torch.randn(original.shape, generator=generator)
    latents = scheduler.add_noise(original, noise, times[:1]) if spec.strength < 1 else noise
    hidden = torch.from_numpy(np.array(canvas.init, np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
    hidden = hidden * (shade == 0)
    seen = base.vae.encode(hidden).latent_dist.sample(generator) * scale
    texts = base.encode_prompt(spec.prompt, "cpu", 1, True, "")
    for number, t in enumerate(times):
        noised = scheduler.add_noise(original, noise, t[None])
        latents = torch.where(kept > number / steps, noised, latents)
        rows = torch.cat([latents, (kept < 1).float(), seen], 1).repeat(2, 1, 1, 1)
        plain, asked = base.unet(rows, t, encoder_hidden_states=torch.cat(texts[::-1])).sample
        guided = plain + spec.guidance_scale * (asked - plain)
        latents = scheduler.step(guided[None], t, latents).prev_sample
    return (base.vae.decode(latents / scale).sample[0] / 2 + 0.5).clamp(0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "inpaint", "xl", "flux"])
def test_soft_masks_alone_equal_those_in_any_batch(
    name: str,
    engine: Engine,
    load: Callable[[str], Checkpoint],
    canvas: Canvas,
    make_spec: Callable[..., GenerationSpec],
) -> None:
    rng = random.Random(name)
    work = [
        (
            make_spec(
                kind=Kind.INPAINT, seed=seed, steps=rng.randint(3, 7), scheduler=SAMPLERS["xl"][1]
            ),
            soft(canvas, rng.sample(SHADES, k=8)) if seed % 2 else canvas,
        )
        for seed in range(6)
    ]
    alone = [weave(engine, load(name), [one])[0] for one in work]
    for painting, expected in zip(weave(engine, load(name), work), alone, strict=True):
        assert float((painting.image - expected.image).abs().max()) <= TOLERANCE
