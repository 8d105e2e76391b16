"""Measures what the demo ControlNet does: is the object where, and of the form that, its edges say?

Only stock diffusers code paints. The edges are those of drawn pictures that training did not see;
half of the prompts name another shape than the outline has.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import ControlNetModel, DDIMScheduler, StableDiffusionControlNetPipeline
from PIL import Image

from training.controlnet import edges_of, outlined
from training.domain import LORA_SHAPE, SHAPES
from training.scene import Item, Picture, draw, silhouette
from training.scorer import WORK_PX, find_object, judge

__all__ = ["Faithfulness", "Outline", "faithfulness", "make_outlines", "overlap", "paint"]

_NATIVE_PX = 256
_ROWS = 8


@dataclass(frozen=True, slots=True)
class Outline:
    """A drawn picture and its edges, (H, W, 3) uint8, the prompt, and the object they are of."""

    drawn: Picture
    edges: Picture
    prompt: str
    item: Item
    seed: int


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """Mean overlap (IoU) with the outline, shares of the asked colour and of hearts."""

    overlap: float
    colour: float
    hearts: float

    def row(self) -> str:
        """Formats the cells of one table row."""
        return f"{self.overlap:.3f} | {self.colour:.3f} | {self.hearts:.3f}"


def make_outlines(count: int, seed: int, shape: str = "") -> list[Outline]:
    """Draws what to follow: of any shape, or of the named one, which the prompts then name."""
    rng = np.random.default_rng([seed, 1818])
    found: list[Outline] = []
    while len(found) < count:
        wish, scene = outlined(rng)
        if shape not in ("", wish.shape):
            continue
        named = wish.shape if shape or len(found) % 2 == 0 else str(rng.choice(SHAPES))
        if named == LORA_SHAPE and not shape:
            named = str(rng.choice(SHAPES))  # a word that the base knows
        prompt = f"a {wish.colour} {named} on a {wish.background} background"
        drawn = draw(scene, _NATIVE_PX)
        found.append(Outline(drawn, edges_of(drawn), prompt, scene.items[0], 20_000 + len(found)))
    return found


def overlap(picture: Picture, item: Item) -> float:
    """Divides what the picture's object and the outline share by what either covers."""
    painted, asked = find_object(picture), silhouette(item, WORK_PX)
    return float((painted & asked).sum() / (painted | asked).sum())


def faithfulness(outlines: Sequence[Outline], pictures: Sequence[Picture]) -> Faithfulness:
    """Judges pictures against the outlines they were to follow."""
    verdicts = [judge(picture) for picture in pictures]
    both = list(zip(outlines, pictures, strict=True))
    colours = [
        seen.colour == asked.item.colour for asked, seen in zip(outlines, verdicts, strict=True)
    ]
    return Faithfulness(
        float(np.mean([overlap(picture, outline.item) for outline, picture in both])),
        float(np.mean(colours)),
        float(np.mean([verdict.shape == LORA_SHAPE for verdict in verdicts])),
    )


@torch.inference_mode()
def paint(
    checkpoints: Path, outlines: Sequence[Outline], guidance: float, num_steps: int, lora: str = ""
) -> list[Picture]:
    """Paints one picture per outline with the stock pipeline and DDIM: (H, W, 3), uint8."""
    net = ControlNetModel.from_pretrained(checkpoints / "demo-controlnet", dtype=torch.float32)
    pipe = StableDiffusionControlNetPipeline.from_pretrained(
        checkpoints / "demo", controlnet=net, dtype=torch.float32
    )
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    pipe.to("cuda" if torch.cuda.is_available() else "cpu")
    if lora:
        pipe.load_lora_weights(checkpoints / "demo-loras", weight_name=f"{lora}.safetensors")
    pictures: list[Picture] = []
    for start in range(0, len(outlines), _ROWS):
        part = outlines[start : start + _ROWS]
        output = pipe(
            prompt=[outline.prompt for outline in part],
            image=[Image.fromarray(outline.edges) for outline in part],
            generator=[torch.Generator().manual_seed(outline.seed) for outline in part],
            guidance_scale=guidance,
            num_inference_steps=num_steps,
            output_type="np",
        )
        pictures.extend((output.images * 255).round().astype(np.uint8))
    return pictures
