"""Runs the stock pipelines on batches of wishes, one seed per picture.

Callers: ``evaluate`` and ``effects``. Only stock diffusers code draws; nothing is patched.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    UniPCMultistepScheduler,
)
from PIL import Image

from training.caption import describe
from training.domain import COLOURS, HELD_OUT, SHAPES
from training.mask import Mask, local_task
from training.sampling import Wish, random_background
from training.scene import Picture, Scene, draw

__all__ = ["SAMPLERS", "Case", "Pipeline", "generate", "is_inpaint", "load", "make_cases"]

Pipeline: TypeAlias = StableDiffusionPipeline | StableDiffusionInpaintPipeline
SAMPLERS = {
    "DDIM": (DDIMScheduler, {}),
    "EulerA": (EulerAncestralDiscreteScheduler, {}),
    "DPM++ 2M Karras": (DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    "UniPC": (UniPCMultistepScheduler, {}),
    "Euler": (EulerDiscreteScheduler, {}),
}
_ROWS = 16
_SUFFIXES = ("", "", ", high quality, detailed, trending on artstation", ", 4k photo of my dreams")


@dataclass(frozen=True, slots=True)
class Case:
    """One picture to make: what is asked, in which words, into what, with which seed."""

    wish: Wish
    prompt: str
    picture: Picture
    mask: Mask
    seed: int


def load(folder: Path) -> Pipeline:
    """Loads a shipped checkpoint in float32; the folder says which pipeline it is."""
    is_inpainting = "Inpaint" in (folder / "model_index.json").read_text()
    kind = StableDiffusionInpaintPipeline if is_inpainting else StableDiffusionPipeline
    pipe = kind.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    # One picture at a time, channels last: on a CPU twice as fast as sixteen at once.
    pipe.vae.enable_slicing()
    pipe.vae.to(memory_format=torch.channels_last)
    return pipe.to("cuda" if torch.cuda.is_available() else "cpu")


def is_inpaint(pipe: Pipeline) -> bool:
    """Says whether this checkpoint repaints a masked part."""
    return isinstance(pipe, StableDiffusionInpaintPipeline)


def make_cases(count: int, seed: int, size_px: int = 256) -> list[Case]:
    """Draws cases over all pairs of colour and shape, held-out ones included, in turn.

    Half of the prompts carry a tail of words that mean nothing.
    """
    rng = np.random.default_rng([seed, 4242])
    pairs = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    rng.shuffle(pairs)
    pairs = [*sorted(HELD_OUT), *(pair for pair in pairs if tuple(pair) not in HELD_OUT)]
    cases = []
    for index in range(count):
        colour, shape = pairs[index % len(pairs)]
        size = str(rng.choice(["", "small", "big"]))
        wish = Wish(str(colour), str(shape), size, random_background(rng, colour))
        task = local_task(rng, size_px, wish)
        scene = task.scene
        bare = Scene(scene.background, scene.items[:-1], scene.slope_y, scene.slope_x, scene.jitter)
        prompt = describe(wish) + _SUFFIXES[index % len(_SUFFIXES)]
        cases.append(Case(wish, prompt, draw(bare, size_px), task.mask, 10_000 + index))
    return cases


@torch.inference_mode()
def generate(
    pipe: Pipeline,
    cases: Sequence[Case],
    sampler: str = "DDIM",
    guidance: float = 3.0,
    num_steps: int = 20,
) -> list[Picture]:
    """Makes one picture per case: (H, W, 3), uint8."""
    kind, extra = SAMPLERS[sampler]
    pipe.scheduler = kind.from_config(pipe.scheduler.config, **extra)
    pictures: list[Picture] = []
    for start in range(0, len(cases), _ROWS):
        part = cases[start : start + _ROWS]
        side = len(part[0].picture)
        images = {
            "image": [Image.fromarray(case.picture) for case in part],
            "mask_image": [Image.fromarray(case.mask) for case in part],
        }
        output = pipe(
            prompt=[case.prompt for case in part],
            generator=[torch.Generator().manual_seed(case.seed) for case in part],
            guidance_scale=guidance,
            num_inference_steps=num_steps,
            height=side,
            width=side,
            output_type="np",
            **(images if is_inpaint(pipe) else {}),
        )
        pictures.extend((output.images * 255).round().astype(np.uint8))
    return pictures
