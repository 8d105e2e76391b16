"""`guidance_rescale` of an entry: every kind is rescaled as the paper says, whichever way it takes.

Truth: a stock pipeline whose scheduler gets what diffusers' `rescale_noise_cfg` makes of the guided
prediction and of the last answer of the UNet.
"""

import inspect
from collections.abc import Callable
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

from serve_app.config import EngineConfig
from serve_app.models import ModelEntry
from serve_app.pipelines.compose import Canvas
from serve_app.pipelines.loader import load_checkpoint
from serve_app.types import GenerationSpec, Kind
from tests.engine.test_effects import weave, worst
from tests.engine.test_families import make_xl

CPU = EngineConfig(device="cpu", measure_rows=False)
TOLERANCE = 1e-4
EULER = "EulerDiscreteScheduler"
NAMES = {Kind.TEXT2IMG: "", Kind.IMG2IMG: "Img2Img", Kind.INPAINT: "Inpaint"}


@pytest.fixture(scope="session")
def xl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(6)
    folder = tmp_path_factory.mktemp("xl")
    make_xl().save_pretrained(folder)
    return folder


def stock(source: Path, kind: Kind) -> DiffusionPipeline:
    prefix = "StableDiffusionXL" if source.name.startswith("xl") else "StableDiffusion"
    cls = getattr(diffusers, f"{prefix}{NAMES[kind]}Pipeline")
    pipeline = cls.from_pretrained(source)
    pipeline.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.safety_checker = None
    return pipeline


def rescale(pipeline: DiffusionPipeline, share: float) -> None:
    """Rescale before each step, with the UNet's last answer for the prompt."""
    answers: list[torch.Tensor] = []
    pipeline.unet.register_forward_hook(lambda _module, _inputs, output: answers.append(output[0]))
    step = pipeline.scheduler.step

    def rescaled_step(noise: torch.Tensor, *args: object, **kwargs: object) -> object:
        asked = answers[-1].chunk(2)[1]
        return step(rescale_noise_cfg(noise, asked, share), *args, **kwargs)

    pipeline.scheduler.step = rescaled_step


@pytest.mark.slow
@pytest.mark.parametrize("family", ["attention", "xl"])
@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_is_rescaled(
    kind: Kind,
    family: str,
    folder: Callable[[str], Path],
    xl: Path,
    canvas: Canvas,
    make_spec: Callable[..., GenerationSpec],
) -> None:
    source = xl if family == "xl" else folder(family)
    spec = make_spec(kind=kind, strength=0.8, steps=5, guidance_scale=9.0, scheduler=EULER)
    pipeline = stock(source, kind)
    rescale(pipeline, 0.7)
    given: dict[str, object] = {"height": 64, "width": 64}
    pictures = {"image": canvas.init, "mask_image": canvas.mask, "strength": 0.8}
    names = inspect.signature(pipeline.__call__).parameters
    given |= pictures if kind is not Kind.TEXT2IMG else {}
    inputs = {name: value for name, value in given.items() if name in names}
    expected = pipeline(
        prompt=spec.prompt,
        num_inference_steps=spec.steps,
        guidance_scale=spec.guidance_scale,
        generator=torch.Generator().manual_seed(spec.seed),
        output_type="pt",
        **inputs,
    ).images[0]
    values = {"id": "m", "source": source, "kinds": tuple(Kind), "native_size_px": 64}
    plain, rescaled = (
        weave(load_checkpoint(ModelEntry(**values, guidance_rescale=share), CPU), [spec], canvas)
        for share in (0, 0.7)
    )
    assert worst(rescaled[0][0], expected) <= TOLERANCE
    assert worst(plain[0][0], expected) > 10 * TOLERANCE


@pytest.mark.slow
def test_picture_without_guidance_is_not_rescaled(
    folder: Callable[[str], Path], canvas: Canvas, make_spec: Callable[..., GenerationSpec]
) -> None:
    values = {"id": "m", "source": folder("attention"), "kinds": tuple(Kind)}
    for kind in Kind:
        spec = make_spec(kind=kind, strength=0.8, steps=5, guidance_scale=1.0)
        plain, rescaled = (
            weave(load_checkpoint(ModelEntry(**values, guidance_rescale=s), CPU), [spec], canvas)
            for s in (0, 0.7)
        )
        assert torch.equal(plain[0][0], rescaled[0][0])
