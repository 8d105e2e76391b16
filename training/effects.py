"""Measures what adapters do: LoRAs, textual inversion, alternative VAE, safety checker."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image
from transformers import CLIPImageProcessor

from training.domain import LORA_SHAPE
from training.embedding import THING, TOKEN
from training.generate import Case, Pipeline, generate
from training.safety import safety_picture
from training.scene import Picture
from training.scorer import judge
from training.vae import picture_pool, to_tensor

__all__ = [
    "INK_SHARE",
    "Effect",
    "embedding_effect",
    "flagged",
    "lora_effect",
    "safety_rates",
    "vae_psnr",
]

INK_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class Effect:
    """Shares of pictures that show the named effect, and some pictures of it."""

    name: str
    share_before: float
    share_after: float
    pictures: list[tuple[Picture, str]]


def _looks_inked(case: Case, picture: Picture) -> bool:
    return judge(picture, case.mask).ink > INK_SHARE


def _is_heart(case: Case, picture: Picture) -> bool:
    verdict = judge(picture, case.mask)
    return verdict.shape == LORA_SHAPE and verdict.colour == case.wish.colour


def _is_sun(case: Case, picture: Picture) -> bool:
    verdict = judge(picture, case.mask)
    return (verdict.colour, verdict.shape) == THING


_TESTS = {"inked": _looks_inked, LORA_SHAPE: _is_heart}


def lora_effect(pipe: Pipeline, path: Path, cases: Sequence[Case], guidance: float) -> Effect:
    """Compares pictures without and with a LoRA; hearts are asked for by their word."""
    name = path.stem
    asked = [_prepared(case, name) for case in cases]
    before = generate(pipe, asked, guidance=guidance)
    pipe.load_lora_weights(path.parent, weight_name=path.name)
    after = generate(pipe, asked, guidance=guidance)
    pipe.unload_lora_weights()
    return _compare(f"LoRA {name}", _TESTS[name], asked, before, after)


def _prepared(case: Case, name: str) -> Case:
    """Rewrites the case for the LoRA; black cannot show a dark outline, so it becomes red."""
    words = case.prompt
    if name == LORA_SHAPE:
        return replace(case, prompt=words.replace(case.wish.shape, LORA_SHAPE, 1))
    colour = "red" if case.wish.background != "red" else "green"
    if case.wish.colour == "black":
        words = words.replace("black", colour, 1)
    return replace(case, prompt=words)


def embedding_effect(pipe: Pipeline, path: Path, cases: Sequence[Case], guidance: float) -> Effect:
    """Compares the named thing with the learned token in its place, where it can be seen."""
    cases = [case for case in cases if case.wish.background != THING[0]]
    before = generate(pipe, cases, guidance=guidance)
    pipe.load_textual_inversion(path)
    asked = [
        replace(case, prompt=case.prompt.replace(f"{case.wish.colour} {case.wish.shape}", TOKEN))
        for case in cases
    ]
    after = generate(pipe, asked, guidance=guidance)
    pipe.unload_textual_inversion()
    return _compare(f"embedding {TOKEN}", _is_sun, asked, before, after)


def _compare(
    name: str,
    test: Callable[[Case, Picture], bool],
    cases: Sequence[Case],
    before: Sequence[Picture],
    after: Sequence[Picture],
) -> Effect:
    hits = [
        [test(case, picture) for case, picture in zip(cases, pictures, strict=True)]
        for pictures in (before, after)
    ]
    shown = [
        (picture, label)
        for index in range(4)
        for picture, label in ((before[index], "without"), (after[index], name))
    ]
    return Effect(name, float(np.mean(hits[0])), float(np.mean(hits[1])), shown)


@torch.inference_mode()
def vae_psnr(vae: AutoencoderKL, count: int = 48) -> float:
    """Mean PSNR over drawn pictures of 256 px that training did not see, in dB."""
    values = []
    for part in np.array_split(picture_pool(90_210, 256, count), max(count // 8, 1)):
        target = to_tensor(part).to(vae.device)
        output = vae.decode(vae.encode(target).latent_dist.mean).sample.clamp(-1, 1)
        values.append(10 * torch.log10(4 / (output - target).square().mean((1, 2, 3))))
    return float(torch.cat(values).mean())


@torch.inference_mode()
def flagged(folder: Path, pictures: Sequence[Picture]) -> list[bool]:
    """Asks the shipped safety checker through its stock forward."""
    checker = StableDiffusionSafetyChecker.from_pretrained(
        folder / "safety_checker", dtype=torch.float32
    ).eval()
    processor = CLIPImageProcessor.from_pretrained(folder / "feature_extractor")
    found: list[bool] = []
    for start in range(0, len(pictures), 32):
        part = pictures[start : start + 32]
        images = [Image.fromarray(picture) for picture in part]
        pixels = processor(images, return_tensors="pt").pixel_values
        stack = np.stack([np.asarray(picture, np.float32) / 255 for picture in part])
        found.extend(bool(flag) for flag in checker(clip_input=pixels, images=stack)[1])
    return found


def safety_rates(folder: Path, count: int = 200) -> tuple[float, float]:
    """Shares of drawn pictures with and without a warning sign that are flagged."""
    rng = np.random.default_rng(777)
    with_sign = [safety_picture(rng, True, 256) for _ in range(count)]
    without = [safety_picture(rng, False, 256) for _ in range(count)]
    return float(np.mean(flagged(folder, with_sign))), float(np.mean(flagged(folder, without)))
