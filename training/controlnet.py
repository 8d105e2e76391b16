"""Trains the demo ControlNet: edges of a shape decide where and in what outline it is painted.

Run as ``python -m training.controlnet``; it needs the shipped ``demo`` only, and a stopped run is
taken up again. Captions name the right colour and often another shape, so that the outline is
believed and not the word; a fifth of the outlines are of the heart, which no caption of the base
knows.
"""

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, UNet2DConditionModel
from PIL import Image
from tqdm import tqdm
from transformers import CLIPTextModel

from serve_app.images import hint
from serve_app.types import ControlType
from training.diffusion import build_scheduler, stratified_timesteps
from training.domain import COLOURS, LORA_SHAPE, SHAPES
from training.latents import NATIVE_PX
from training.loop import Plan, World, fit, launch
from training.paths import Workspace, add_arguments, budget
from training.sampling import Wish, random_background, scene_of
from training.scene import Picture, Scene, draw
from training.text import Tokens, build_tokenizer, encode
from training.vae import to_tensor

__all__ = ["build_controlnet", "edges_of", "outlined"]

_ROWS = 8
_NUM_PICTURES = 1500
_PLAN = Plan("controlnet", 1300, 1e-3, 50, ema=0.99, flat_share=0.5)
_PICTURE_LAYERS = (8, 16, 32, 64, 64)  # each but the first halves the side: 16 pixels to a cell
_NO_WORDS_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Lesson:
    """Pictures as latents (N, 4, h, w), their edges (N, H, W) of 0 and 1, and what they show."""

    latents: torch.Tensor
    edges: torch.Tensor
    wishes: list[Wish]

    @classmethod
    @torch.no_grad()
    def make(cls, path: Path, vae: AutoencoderKL, count: int, seed: list[int]) -> "Lesson":
        """Reads the pictures from ``path``, or draws, encodes and writes them."""
        if path.exists():
            latents, edges, rows = torch.load(path, weights_only=True)
            return cls(latents, edges, [Wish(*words) for words in rows])
        rng, encoded, edges, wishes = np.random.default_rng(seed), [], [], []
        for _ in tqdm(range(budget(count)), path.stem, mininterval=5):
            wish, scene = outlined(rng)
            picture = draw(scene, NATIVE_PX)
            encoded.append(vae.encode(to_tensor(picture[None])).latent_dist.mean)
            edges.append(torch.from_numpy(edges_of(picture)[..., 0] > 0))
            wishes.append(wish)
        latents, stacked = torch.cat(encoded), torch.stack(edges)
        rows = [(one.colour, one.shape, one.size, one.background) for one in wishes]
        torch.save((latents, stacked, rows), path)
        return cls(latents, stacked, wishes)


def outlined(rng: np.random.Generator) -> tuple[Wish, Scene]:
    """Draws an object of any shape and colour, wholly inside the frame."""
    shape = LORA_SHAPE if rng.random() < 0.2 else str(rng.choice(SHAPES))
    colour, size = str(rng.choice(tuple(COLOURS))), str(rng.choice(["", "small", "big"]))
    wish = Wish(colour, shape, size, random_background(rng, colour))
    return wish, scene_of(wish, rng)


def edges_of(picture: Picture) -> Picture:
    """Draws the edges that `auto_hint` would."""
    return np.asarray(hint.make(ControlType.CANNY, Image.fromarray(picture)))


def build_controlnet(unet: UNet2DConditionModel) -> ControlNetModel:
    """Copies the first half of a denoiser; it adds nothing yet."""
    own = ControlNetModel.from_unet(unet, load_weights_from_unet=False).config
    net = ControlNetModel.from_config(
        own,
        conditioning_embedding_out_channels=_PICTURE_LAYERS,
        addition_embed_type_num_heads=unet.config.addition_embed_type_num_heads,
    )
    left_over = net.load_state_dict(unet.state_dict(), strict=False)
    assert all(name.startswith("controlnet_") for name in left_over.missing_keys), "its own layers"
    return net


def _caption(wish: Wish, rng: np.random.Generator) -> str:
    """Names the colour, and half of the time another shape, since the outline is to count."""
    if rng.random() < _NO_WORDS_SHARE:
        return ""
    is_named = wish.shape in SHAPES and rng.random() < 0.5
    shape = wish.shape if is_named else str(rng.choice(SHAPES))
    ending = f" on a {wish.background} background" if rng.random() < 0.7 else ""
    return f"a {wish.colour} {shape}{ending}"


def _train(demo: Path, world: World, folder: Path) -> None:
    torch.manual_seed(world.rank)
    unet = UNet2DConditionModel.from_pretrained(demo / "unet", dtype=torch.float32)
    text = CLIPTextModel.from_pretrained(demo / "text_encoder", dtype=torch.float32)
    vae = AutoencoderKL.from_pretrained(demo / "vae", dtype=torch.float32)
    for part in (unet, text, vae):
        part.eval().requires_grad_(False)
    net, tokens = build_controlnet(unet), Tokens(build_tokenizer())
    path = folder / f"controlnet-pictures-{world.rank}.pt"
    lesson = Lesson.make(path, vae, _NUM_PICTURES // world.size, [world.rank, 18])
    averaged = fit(net, partial(_loss, net, unet, (text, tokens), lesson), _PLAN, folder, world)
    if world.rank == 0:
        assert isinstance(averaged, ControlNetModel), "fit keeps the type"
        averaged.save_pretrained(folder / "controlnet")


def _loss(
    net: ControlNetModel,
    unet: UNet2DConditionModel,
    words: tuple[CLIPTextModel, Tokens],
    lesson: Lesson,
    step: int,
) -> torch.Tensor:
    """Squared error of v, of rows drawn by the number of the step."""
    rng, scheduler = np.random.default_rng([step, 18]), build_scheduler()
    rows = rng.integers(len(lesson.wishes), size=_ROWS)
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    captions = [_caption(lesson.wishes[row], rng) for row in rows]
    text, tokens = words
    states = encode(text, tokens.rows(captions), torch.zeros(_ROWS, dtype=torch.bool))
    latents = lesson.latents[rows]
    noise = torch.randn(latents.shape, generator=generator)
    steps = stratified_timesteps(_ROWS, generator, latents.shape[-1])
    noisy = scheduler.add_noise(latents, noise, steps)
    picture = lesson.edges[rows][:, None].float().expand(-1, 3, -1, -1)
    down, middle = net(noisy, steps, states, picture, return_dict=False)
    predicted = unet(
        noisy,
        steps,
        states,
        down_block_additional_residuals=down,
        mid_block_additional_residual=middle,
        return_dict=False,
    )[0]
    return _squared(predicted, latents, noise, steps, scheduler)


def _squared(
    predicted: torch.Tensor,
    latents: torch.Tensor,
    noise: torch.Tensor,
    steps: torch.Tensor,
    scheduler: DDIMScheduler,
) -> torch.Tensor:
    wanted = scheduler.get_velocity(latents, noise, steps)
    return torch.nn.functional.mse_loss(predicted, wanted)


def main() -> None:
    """Trains it and writes it in half precision."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    options = Workspace.from_arguments(parser.parse_args())
    launch(partial(_train, options.out / "demo"), options.work, options.num_processes)
    net = ControlNetModel.from_pretrained(options.work / "controlnet", dtype=torch.float16)
    net.register_to_config(_name_or_path="")
    net.save_pretrained(options.out / "demo-controlnet")


if __name__ == "__main__":
    main()
