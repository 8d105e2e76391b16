"""Trains the safety checker: it flags warning signs and passes everything else.

Run as ``python -m training.safety``. The result is a stock ``StableDiffusionSafetyChecker``: a
tiny CLIP vision tower, of which concept 0 is the warning sign; the other concepts have
thresholds that no cosine reaches.
"""

from pathlib import Path

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from torch import nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPImageProcessor

from training.domain import BADGE, COLOURS, LORA_SHAPE, SHAPES
from training.loop import Plan, World, device_of, fit, run_part
from training.sampling import Wish, random_background, scene_of
from training.scene import Item, Picture, Scene, draw

__all__ = ["build", "build_processor", "safety_picture"]

_SIDE_PX = 64
_BATCH = 48
_THRESHOLD = 0.5
_SHARPNESS = 12.0
_NUM_STEPS = 350


def build() -> StableDiffusionSafetyChecker:
    """Makes the untrained checker."""
    vision = {
        "image_size": _SIDE_PX,
        "patch_size": 8,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "projection_dim": 32,
    }
    text = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 1, "vocab_size": 8, "projection_dim": 32}
    text |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=32)
    checker = StableDiffusionSafetyChecker(config)
    generator = torch.Generator().manual_seed(0)
    for embeds in (checker.concept_embeds, checker.special_care_embeds):
        embeds.data.copy_(torch.randn(embeds.shape, generator=generator))
    checker.concept_embeds_weights.data.fill_(2.0)
    checker.special_care_embeds_weights.data.fill_(2.0)
    checker.concept_embeds_weights.data[0] = _THRESHOLD
    return checker


def build_processor() -> CLIPImageProcessor:
    """Makes the picture preparation that goes with the checker."""
    size = {"height": _SIDE_PX, "width": _SIDE_PX}
    return CLIPImageProcessor(
        size={"shortest_edge": _SIDE_PX},
        crop_size=size,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )


def safety_picture(rng: np.random.Generator, with_sign: bool, size_px: int = 128) -> Picture:
    """Draws a scene with or without a warning sign, near misses among the latter."""
    sign = Wish("yellow", BADGE, "", random_background(rng, "yellow"))
    wish = sign if with_sign else _harmless(rng)
    scene = scene_of(wish, rng)
    items = list(scene.items)
    for _ in range(rng.integers(0, 3)):
        item = scene_of(_harmless(rng), rng).items[0]
        y, x = rng.uniform(0.05, 0.95, 2)
        radius = float(rng.uniform(0.06, 0.16))
        items.insert(0, Item(item.shape, item.colour, float(y), float(x), radius, item.style))
    return draw(Scene(scene.background, tuple(items), scene.slope_y, scene.slope_x), size_px)


def _harmless(rng: np.random.Generator) -> Wish:
    """Draws any coloured shape; yellow and black triangles, the near misses, in a quarter."""
    if rng.random() < 0.25:
        colour = str(rng.choice(["yellow", "black", "orange"]))
        return Wish(colour, "triangle", "", random_background(rng, colour))
    colour = str(rng.choice(tuple(COLOURS)))
    shape = str(rng.choice((*SHAPES, LORA_SHAPE)))
    return Wish(colour, shape, "", random_background(rng, colour))


def _soften(pictures: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Shrinks (B, 3, H, W) to 64 px, a third of it blurred as a decoder would blur it."""
    small = F.interpolate(pictures, (_SIDE_PX, _SIDE_PX), mode="area")
    blurred = F.avg_pool2d(F.pad(small, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    amount = torch.from_numpy(rng.uniform(-0.5, 1, (len(small), 1, 1, 1))).float().clamp(0)
    noise = torch.from_numpy(rng.normal(0, 0.02, small.shape)).float()
    return torch.lerp(small, blurred, amount) + noise


def _worker(world: World, folder: Path) -> None:
    torch.manual_seed(0)
    device = device_of()
    checker = build().to(device).train()
    checker.concept_embeds_weights.requires_grad_(False)
    checker.special_care_embeds_weights.requires_grad_(False)
    checker.concept_embeds.requires_grad_(True)
    vision: nn.Module = checker.vision_model
    plan = Plan("safety", _NUM_STEPS, 1e-3, ema=0.99)

    def loss_of(step: int) -> torch.Tensor:
        rng = np.random.default_rng([step, world.rank])
        labels = rng.random(_BATCH) < 0.5
        drawn = np.stack([safety_picture(rng, bool(flag)) for flag in labels])
        pixels = torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 127.5 - 1
        seen = vision(_soften(pixels, rng).to(device)).pooler_output
        embeds = checker.visual_projection(seen)
        cosine = F.cosine_similarity(embeds, checker.concept_embeds[:1])
        targets = torch.from_numpy(labels).float().to(device)
        return F.binary_cross_entropy_with_logits(_SHARPNESS * (cosine - _THRESHOLD), targets)

    averaged = fit(checker, loss_of, plan, folder, world)
    if world.rank == 0:
        assert isinstance(averaged, StableDiffusionSafetyChecker), "fit keeps the type"
        averaged.save_pretrained(folder / "safety_checker")


def main() -> None:
    """Trains the checker and writes it with its feature extractor."""
    options = run_part(_worker, __doc__)
    half = torch.float16
    checker = StableDiffusionSafetyChecker.from_pretrained(
        options.work / "safety_checker", dtype=half
    )
    checker.save_pretrained(options.out / "demo-safety" / "safety_checker")
    build_processor().save_pretrained(options.out / "demo-safety" / "feature_extractor")


if __name__ == "__main__":
    main()
