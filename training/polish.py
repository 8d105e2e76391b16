"""Teaches the decoder to see through what the denoisers leave in their latents.

Run as ``python -m training.polish``, after the denoisers. The encoder's latents spread by 0.01,
those of a denoiser lie 0.1 and more off, and a decoder that knew only the former paints the rest
as stains. So it learns from latents that were noised and denoised again, and from some with white
noise; the picture to give is the drawn one. The encoder and thus the latents stay as they are.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from tqdm import tqdm
from transformers import CLIPTextModel

from training.caption import describe
from training.diffusion import build_scheduler
from training.latents import NATIVE_PX, encode_tasks
from training.loop import Plan, World, autocast, device_of, fit, run_part
from training.mask import Task, random_task
from training.paths import budget
from training.sampling import Wish, random_scene
from training.scene import draw
from training.text import Tokens, build_tokenizer, encode
from training.unet import plain_task
from training.vae import EDGE_WEIGHT, picture_loss, to_tensor

__all__ = ["Denoiser", "disturb", "random_tasks"]

_PLAN = Plan("polish", 6000, 1e-3, 50, ema=0.995, flat_share=0.7, num_between_saves=50)
_POOL = 3000
_ROWS = 2
_MAX_TIMESTEP = 400
_NUM_STEPS = 20
_GUIDANCE = (1.0, 5.0)
# A latent further off than this shows another picture than the drawn one.
_MAX_RMS = 0.25
_MAX_NOISE = 0.25
_DENOISED_SHARE = 0.7


def disturb(latents: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Adds white noise to latents (B, 4, h, w), of 0 to 0.25 in strength, row by row."""
    strength = _MAX_NOISE * torch.rand(len(latents), 1, 1, 1, generator=generator)
    noise = torch.randn(latents.shape, generator=generator)
    return latents + (strength * noise).to(latents)


@dataclass(frozen=True, slots=True)
class Denoiser:
    """A trained denoiser and its text encoder."""

    unet: UNet2DConditionModel
    text: CLIPTextModel
    tokens: Tokens

    @torch.no_grad()
    def again(
        self, latents: torch.Tensor, context: torch.Tensor, caption: str, rng: np.random.Generator
    ) -> torch.Tensor:
        """Noises one row of latents (1, 4, h, w) to a random timestep and denoises it."""
        scheduler = build_scheduler()
        scheduler.set_timesteps(_NUM_STEPS)
        first = rng.uniform(1000 / _NUM_STEPS, _MAX_TIMESTEP)
        steps = scheduler.timesteps[scheduler.timesteps <= first].to(latents.device)
        guidance = rng.uniform(*_GUIDANCE)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        rows = self.tokens.rows(["", caption]).to(latents.device)
        text = encode(self.text, rows, torch.zeros(2, dtype=torch.bool).to(latents.device))
        now: torch.Tensor = scheduler.add_noise(latents, noise, steps[:1])
        for step in steps:
            inputs = torch.cat([now, context], 1) if self.unet.config.in_channels == 9 else now
            with autocast(latents.device):
                without, asked = self.unet(inputs.repeat(2, 1, 1, 1), step, text).sample.chunk(2)
            velocity = without + guidance * (asked - without)
            now = scheduler.step(velocity.float(), step, now).prev_sample
        return now


def random_tasks(rng: np.random.Generator, count: int) -> list[tuple[str | None, Task]]:
    """Draws tasks, each with the denoiser that shall redo it.

    Every fourth is a crowded scene of any style. No caption describes it, so no denoiser could.
    """
    tasks: list[tuple[str | None, Task]] = []
    for index in range(count):
        if index % 4 == 0:
            scene, everywhere = random_scene(rng), np.ones((NATIVE_PX, NATIVE_PX), bool)
            wish = Wish("", "", "", scene.background)
            tasks.append((None, Task(scene, everywhere, wish, True)))
        elif index % 4 == 1:
            tasks.append(("unet-plain", plain_task(rng, NATIVE_PX)))
        else:
            tasks.append(("unet-inpaint", random_task(rng, NATIVE_PX)))
    return tasks


def _latents(
    folder: Path,
    vae: AutoencoderKL,
    tasks: list[tuple[str | None, Task]],
    rng: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Encodes the tasks and denoises them again: (N, 4, h, w) twice, exact and denoised."""
    text = CLIPTextModel.from_pretrained(folder / "text_encoder").to(vae.device).eval()
    denoisers = {}
    for name in ("unet-inpaint", "unet-plain"):
        unet = UNet2DConditionModel.from_pretrained(folder / name).to(vae.device).eval()
        denoisers[name] = Denoiser(unet, text, Tokens(build_tokenizer()))
    exact, denoised = [], []
    for wanted, task in tqdm(tasks, "pool-polish", mininterval=5):
        clean, context = encode_tasks(vae, [task], NATIVE_PX)
        exact.append(clean)
        if wanted:
            again = denoisers[wanted].again(clean, context, describe(task.wish), rng)
            is_near = (again - clean).square().mean().sqrt() <= _MAX_RMS
            clean = again if is_near else clean
        denoised.append(clean)
    return torch.cat(exact), torch.cat(denoised)


def _worker(world: World, folder: Path) -> None:
    torch.manual_seed(9)
    device = device_of()
    vae = AutoencoderKL.from_pretrained(folder / "vae").to(device)
    vae.requires_grad_(False)
    vae.decoder.requires_grad_(True)
    rng = np.random.default_rng([21, world.rank])
    tasks = random_tasks(rng, budget(_POOL // world.size))
    path = folder / f"pool-polish-{world.rank}.pt"
    if not path.exists():
        torch.save(_latents(folder, vae, tasks, rng), path)
    exact, denoised = torch.load(path, weights_only=True, map_location=device)
    assert len(exact) == len(tasks), f"{path} is of another number of processes: delete it"

    def loss_of(step: int) -> torch.Tensor:
        own = np.random.default_rng([step, world.rank, 10])
        generator = torch.Generator().manual_seed(int(own.integers(2**62)))
        rows = own.integers(len(tasks), size=_ROWS)
        pictures = to_tensor(np.stack([draw(tasks[row][1].scene, NATIVE_PX) for row in rows]))
        latents = disturb(exact[rows], generator)
        is_denoised = torch.from_numpy(own.random(_ROWS) < _DENOISED_SHARE).to(device)
        latents = torch.where(is_denoised[:, None, None, None], denoised[rows], latents)
        with autocast(device):
            output = vae.decode(latents).sample
        return picture_loss(pictures.to(device), output.float(), EDGE_WEIGHT)

    averaged = fit(vae.decoder, loss_of, _PLAN, folder, world)
    if world.rank == 0:
        vae.decoder.load_state_dict(averaged.state_dict())
        vae.save_pretrained(folder / "vae-polished")


def main() -> None:
    """Trains the decoder and writes the autoencoder into the workspace beside the first."""
    run_part(_worker, __doc__)


if __name__ == "__main__":
    main()
