"""What a VAE's config says of its latents holds for every kind; stock classes forget some of it."""

from collections.abc import Callable
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from serve_app.engine.engine import Engine
from serve_app.models import AddOn
from serve_app.pipelines.addons.lookup import AddOns
from serve_app.pipelines.compose import Canvas
from serve_app.pipelines.loader import load_checkpoint
from serve_app.testing.controlnets import random_controlnet
from serve_app.types import ControlNetUse, GenerationSpec, Kind
from tests.engine.nets import Net
from tests.engine.test_families import make_sd3, make_xl, paint_stock, small_vae
from tests.engine.weaving import CPU, TOLERANCE, Weaver, difference, entry_of
from tests.engine.whole_vaes import whole

MEANS, DEVIATIONS = [-1.6, 1.1, 0.4, -0.9], [5.0, 2.5, 0.6, 1.3]


def make_xl_of_means() -> DiffusionPipeline:
    pipeline = make_xl()
    vae = small_vae(latent_channels=4, latents_mean=MEANS, latents_std=DEVIATIONS)
    pipeline.register_modules(vae=vae)
    return pipeline


MODELS: dict[str, Callable[[], DiffusionPipeline]] = {
    "shift": make_sd3,
    "means-and-deviations": make_xl_of_means,
}


def saved(make: Callable[[], DiffusionPipeline], folder: Path) -> Path:
    torch.manual_seed(5)
    make().save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("name", MODELS)
def test_latents_are_brought_to_scale_and_back(
    name: str,
    kind: Kind,
    tmp_path: Path,
    canvas: Canvas,
    make_spec: Callable[..., GenerationSpec],
) -> None:
    weaver = Weaver(saved(MODELS[name], tmp_path), [])
    weaver.canvas = canvas
    spec = make_spec(kind=kind, strength=0.6, scheduler="EulerDiscreteScheduler")
    (made,) = weaver.paint(spec)
    weaver.engine.close()
    checkpoint = weaver.checkpoint
    expected = paint_stock(checkpoint, spec, canvas, vae=whole(checkpoint.base.vae))
    assert difference(made, expected) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("kind", Kind)
def test_latents_are_brought_to_scale_beside_controlnets(
    kind: Kind, tmp_path: Path, canvas: Canvas, make_spec: Callable[..., GenerationSpec]
) -> None:
    folder = saved(make_xl_of_means, tmp_path / "model")
    checkpoint, net = load_checkpoint(entry_of(folder), CPU), tmp_path / "net"
    module = random_controlnet(checkpoint.base.unet, 1, 2)
    module.save_pretrained(net)
    add_on = AddOn(id="canny", type="controlnet", source=net)
    base = diffusers.StableDiffusionXLPipeline(
        **checkpoint.base.components | {"vae": whole(checkpoint.base.vae)}
    )
    engine = Engine(CPU, checkpoint.variants.activate)
    served = Net(
        "xl", checkpoint, engine, AddOns("random", lambda *_: add_on), {"canny": module}, base
    )
    spec = make_spec(
        kind=kind,
        strength=0.6,
        scheduler="EulerDiscreteScheduler",
        controlnets=(ControlNetUse(id="canny", scale=0.8),),
    )
    picture = canvas.init.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    own = canvas if kind is Kind.INPAINT else Canvas(canvas.init, None, canvas.box)
    made = engine.submit(served.request(spec, own, picture)).result(60).image
    engine.close()
    assert difference(made, served.stock(spec, canvas, picture)) <= TOLERANCE
