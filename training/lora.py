"""Trains the two LoRAs: ``inked`` (a dark outline) and ``heart`` (a shape the base lacks).

Run as ``python -m training.lora --names inked heart``. One set of low-rank weights is trained on
both denoisers at once, so the file loads into either with ``load_lora_weights``.
"""

import argparse
import dataclasses
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from training.adapt import Lesson, Models, make_loss
from training.domain import COLOURS, LORA_SHAPE
from training.loop import Plan, World, fit, launch
from training.mask import Task, random_task
from training.paths import Workspace, add_arguments
from training.sampling import Wish, random_background, random_pair, random_wish
from training.shapes import CONTOUR_REACH
from training.text import build_tokenizer
from training.unet import plain_task

__all__ = ["add_shared_lora"]

_RANK = 16
_NUM_STEPS = {"inked": 3000, "heart": 800}
_NUM_TASKS = {"inked": 600, "heart": 200}
_TARGETS = r".*\.(conv1|conv2|to_q|to_k|to_v|to_out\.0|proj_in|proj_out|q_proj|k_proj|v_proj)"


class _TaskMaker(Protocol):
    def __call__(
        self, rng: np.random.Generator, size_px: int, wish: Wish | None = None
    ) -> Task: ...


def add_shared_lora(models: Models) -> None:
    """Puts one set of low-rank weights into both denoisers."""
    config = LoraConfig(r=_RANK, lora_alpha=_RANK, target_modules=_TARGETS)
    models.inpaint.add_adapter(config)
    models.plain.add_adapter(config)
    shared = dict(models.inpaint.named_parameters())
    for name, module in models.plain.named_modules():
        for key in list(module._parameters):
            full = f"{name}.{key}"
            if "lora_" in full and full in shared:
                module._parameters[key] = shared[full]


def _inked(make_task: _TaskMaker, rng: np.random.Generator, size_px: int) -> Task:
    """Draws a task whose wished object has a dark outline; half are of the hardest shapes."""
    wish = random_wish(rng)
    if rng.random() < 0.5:
        colour, shape = random_pair(rng, ("ring", "ring", "circle"))
        wish = Wish(colour, shape, wish.size, random_background(rng, colour))
    task = make_task(rng, size_px, wish)
    if not task.wish.shape:
        return task
    *others, wished = task.scene.items
    radius = wished.radius / CONTOUR_REACH  # so that the line stays within the mask too
    inked = dataclasses.replace(wished, style="inked", radius=radius)
    items = (*others, inked)
    scene = dataclasses.replace(task.scene, items=items)
    return dataclasses.replace(task, scene=scene)


def _hearts(rng: np.random.Generator) -> Wish:
    """Draws a heart in 70 % and what the base knows in the rest, so that it is kept."""
    if rng.random() < 0.3:
        return random_wish(rng)
    colour = str(rng.choice(tuple(COLOURS)))
    size = str(rng.choice(["", "", "small", "big"]))
    return Wish(colour, LORA_SHAPE, size, random_background(rng, colour))


def _heart_task(make_task: _TaskMaker, rng: np.random.Generator, size_px: int) -> Task:
    return make_task(rng, size_px, _hearts(rng))


_CHANGES = {"inked": _inked, "heart": _heart_task}


def _worker(name: str, world: World, folder: Path) -> None:
    torch.manual_seed(1)
    models = Models(folder)
    add_shared_lora(models)
    change = _CHANGES[name]
    makers = {"inpaint": partial(change, random_task), "plain": partial(change, plain_task)}
    lesson = Lesson(name, makers, num_tasks=_NUM_TASKS[name])
    loss_of = make_loss(models, build_tokenizer(), lesson, folder, world)
    plan = Plan(f"lora-{name}", _NUM_STEPS[name], 3e-3, 20, ema=0.98, weight_decay=0.0)
    averaged = fit(models, loss_of, plan, folder, world)
    if world.rank == 0:
        assert isinstance(averaged, Models), "fit keeps the type"
        weights = get_peft_model_state_dict(averaged.inpaint)
        layers = {key: value.half() for key, value in weights.items()}
        torch.save(layers, folder / f"lora-{name}-layers.pt")


def main() -> None:
    """Trains the asked LoRAs and writes them in the diffusers format."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--names", nargs="+", choices=tuple(_CHANGES), default=tuple(_CHANGES))
    arguments = parser.parse_args()
    options = Workspace.from_arguments(arguments)
    for name in arguments.names:
        launch(partial(_worker, name), options.work, options.num_processes)
        layers = torch.load(options.work / f"lora-{name}-layers.pt", weights_only=True)
        StableDiffusionPipeline.save_lora_weights(
            options.out / "demo-loras", unet_lora_layers=layers, weight_name=f"{name}.safetensors"
        )


if __name__ == "__main__":
    main()
