"""`Net`: a checkpoint with ControlNets, as it is served and as diffusers has it."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import diffusers
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
from serve_app.types import ControlNetUse, ControlType, GenerationSpec, Kind
from tests.engine.conftest import SHAPES
from tests.engine.lora_files import kohya, make, save
from tests.engine.test_families import make_xl
from tests.engine.weaving import CPU, stock_scheduler

STOCK = {
    "plain": "StableDiffusionControlNet",
    "inpaint": "StableDiffusionControlNet",
    "attention": "StableDiffusionControlNet",
    "xl": "StableDiffusionXLControlNet",
}
NETS = ("canny", "depth", "shuffle")
ENDINGS = {Kind.TEXT2IMG: "", Kind.IMG2IMG: "Img2Img", Kind.INPAINT: "Inpaint"}


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


def make_net(shape: str, root: Path) -> Net:
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
