"""What all peers share: the wire form of a request, and the stock pipelines behind it.

A static batch can only join requests that agree in every argument of the pipeline call but
prompt, seed and pictures; `StockModel.paint` joins those and runs the rest one after another.
"""

import base64
import io
import os
from collections.abc import Sequence
from pathlib import Path

import diffusers
import torch
from diffusers import (
    DiffusionPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
)
from PIL import Image
from pydantic import BaseModel, ConfigDict

from serve_app.pipelines.samplers.schedulers import Schedulers
from serve_app.types import GenerationSpec, Kind

__all__ = ["MAX_BATCH", "MAX_WAIT_S", "Ask", "StockModel"]

MAX_WAIT_S = 0.05  # for a batch to fill
MAX_BATCH = int(os.environ.get("BENCH_MAX_BATCH", "1"))  # requests; 1: batches are not allowed


class Ask(BaseModel):
    """The part of the API's body that the traffic uses; the other fields are for our service."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: Kind
    prompt: str
    seed: int
    steps: int
    guidance_scale: float
    scheduler: str
    width: int
    height: int
    strength: float = 1.0
    lora_model: str = ""
    lora_strength: str = ""
    init_image: str | None = None
    mask_image: str | None = None

    @property
    def loras(self) -> tuple[tuple[str, float], ...]:
        """Names of LoRAs, with their strengths."""
        if not self.lora_model:
            return ()
        strengths = map(float, self.lora_strength.split(","))
        return tuple(zip(self.lora_model.split(","), strengths, strict=True))

    def settings(self) -> "Ask":
        """What has to be equal for one call of the pipeline."""
        free = {"prompt": "", "seed": 0, "init_image": None, "mask_image": None}
        return self.model_copy(update=free)


class StockModel:
    """One checkpoint as the three stock pipelines, which share its weights."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        base = StableDiffusionPipeline.from_pretrained(
            os.environ["BENCH_CHECKPOINT"],
            safety_checker=None,
            feature_extractor=None,
            local_files_only=True,
        )
        for file in sorted(Path(os.environ["BENCH_LORAS"]).glob("*.safetensors")):
            base.load_lora_weights(file.parent, weight_name=file.name, adapter_name=file.stem)
        base.to(torch.float32)  # loaded LoRAs have the type of their files
        self._base = base
        self._loras: tuple[tuple[str, float], ...] | None = None  # that are active
        self._has_loras = bool(base.get_list_adapters())
        self._schedulers = Schedulers(base.scheduler)  # cached copies: no peer pays for making one
        parts = base.components
        self._pipelines: dict[Kind, DiffusionPipeline] = {
            Kind.TEXT2IMG: base,
            Kind.IMG2IMG: StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False),
            Kind.INPAINT: StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False),
        }
        for pipeline in self._pipelines.values():
            pipeline.set_progress_bar_config(disable=True)
        diffusers.utils.logging.set_verbosity_error()

    def paint(self, asks: Sequence[Ask]) -> list[str]:
        """Paint, those of equal settings in one pipeline call; PNGs as base64, in order."""
        groups: dict[Ask, list[int]] = {}
        for index, ask in enumerate(asks):
            groups.setdefault(ask.settings(), []).append(index)
        painted: dict[int, Image.Image] = {}
        for settings, members in groups.items():
            images = self._call(settings, [asks[index] for index in members])
            painted.update(zip(members, images, strict=True))
        return [_encode(painted[index]) for index in range(len(asks))]

    def _activate(self, loras: tuple[tuple[str, float], ...]) -> None:
        """Switch to the LoRAs of a call, unless they are those of the last one."""
        if loras == self._loras:
            return
        if loras:
            self._base.enable_lora()
            self._base.set_adapters([name for name, _ in loras], [weight for _, weight in loras])
        elif self._has_loras:
            self._base.disable_lora()
        self._loras = loras

    def _call(self, settings: Ask, asks: Sequence[Ask]) -> list[Image.Image]:
        self._activate(settings.loras)
        pipeline = self._pipelines[settings.kind]
        pipeline.scheduler = self._schedulers.make(_spec(settings))
        arguments: dict[str, object] = {
            "prompt": [ask.prompt for ask in asks],
            "generator": [torch.Generator().manual_seed(ask.seed) for ask in asks],
            "num_inference_steps": settings.steps,
            "guidance_scale": settings.guidance_scale,
        }
        if settings.kind is not Kind.IMG2IMG:
            arguments |= {"width": settings.width, "height": settings.height}
        if settings.kind is not Kind.TEXT2IMG:
            arguments["strength"] = settings.strength
            arguments["image"] = [_decode(ask.init_image, "RGB") for ask in asks]
        if settings.kind is Kind.INPAINT:
            arguments["mask_image"] = [_decode(ask.mask_image, "L") for ask in asks]
        images: list[Image.Image] = pipeline(**arguments).images
        return images


def _spec(ask: Ask) -> GenerationSpec:
    return GenerationSpec(
        model_id="random",
        kind=ask.kind,
        prompt="",
        height=ask.height,
        width=ask.width,
        steps=ask.steps,
        scheduler=ask.scheduler,
        seed=0,
    )


def _decode(text: str | None, mode: str) -> Image.Image:
    assert text is not None, "this kind has the picture"
    return Image.open(io.BytesIO(base64.b64decode(text))).convert(mode)


def _encode(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)  # as our service does
    return base64.b64encode(buffer.getvalue()).decode("ascii")
