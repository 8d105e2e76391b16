"""The training loop that every part shares: AdamW, warm-up and cosine, EMA, resume.

On a CPU it can run as several single-thread processes that average their weights every few
steps (faster than threads inside one process for models this small). Callers give a module and
a loss.
"""

import argparse
import copy
import dataclasses
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import start_processes
from tqdm import tqdm

from training.paths import Workspace, add_arguments, budget

__all__ = ["Plan", "World", "autocast", "device_of", "fit", "launch", "run_part"]

Loss = Callable[[int], torch.Tensor]
# Local steps between averages: Stich 2019, "Local SGD converges fast", arXiv 1805.09767.
_STEPS_APART = 5


@dataclass(frozen=True, slots=True)
class World:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """Length and step sizes of one training; ``name`` is also the progress file's name.

    The learning rate stays flat for ``flat_share`` of the steps after the warm-up, so until then
    the length may still be changed without changing the steps taken (Hu 2024, arXiv 2404.06395).
    """

    name: str
    num_steps: int
    learning_rate: float
    num_warmup: int = 100
    ema: float = 0.998
    weight_decay: float = 0.01
    final_factor: float = 0.01
    flat_share: float = 0.0
    num_between_saves: int = 100


def device_of() -> torch.device:
    """Picks the accelerator if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(device: torch.device) -> torch.autocast:
    """Computes in bfloat16 on an accelerator; a CPU without such units is ten times slower so."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type != "cpu")


def launch(worker: Callable[[World, Path], None], folder: Path, num_processes: int) -> None:
    """Runs ``worker`` in that many processes which average weights; blocks until all end."""
    folder.mkdir(parents=True, exist_ok=True)
    if num_processes == 1 or torch.cuda.is_available():
        worker(World(), folder)
        return
    meeting = folder / f"meeting-{os.getpid()}"
    start_processes(  # type: ignore[no-untyped-call]  # torch has no types for it
        _join, (worker, folder, num_processes, meeting), num_processes
    )


def run_part(worker: Callable[[World, Path], None], description: str | None) -> Workspace:
    """Reads the options that every part has, trains, and gives back where everything is."""
    parser = argparse.ArgumentParser(description=description)
    add_arguments(parser)
    options = Workspace.from_arguments(parser.parse_args())
    launch(worker, options.work, options.num_processes)
    return options


def _join(
    rank: int, worker: Callable[[World, Path], None], folder: Path, size: int, meeting: Path
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
    worker(World(rank, size), folder)
    dist.destroy_process_group()


def _factor(step: int, plan: Plan) -> float:
    """Learning-rate factor: linear warm-up, flat part, then cosine down to ``final_factor``."""
    warm = min(1.0, (step + 1) / plan.num_warmup)
    done = max(0.0, step / plan.num_steps - plan.flat_share) / (1 - plan.flat_share)
    turn = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return warm * (plan.final_factor + (1 - plan.final_factor) * turn)


@torch.no_grad()
def _average_weights(parameters: list[nn.Parameter], world: World) -> None:
    """Replaces the weights by their mean over all processes."""
    flat = torch.cat([weight.reshape(-1) for weight in parameters])
    dist.all_reduce(flat)
    flat /= world.size
    parts = torch.split(flat, [weight.numel() for weight in parameters])
    for weight, part in zip(parameters, parts, strict=True):
        weight.copy_(part.view_as(weight))


@torch.no_grad()
def _follow(shadow: nn.Module, module: nn.Module, decay: float) -> None:
    """Moves the averaged weights a little towards the trained ones."""
    targets: list[torch.Tensor] = [weight for weight in module.parameters() if weight.requires_grad]
    shadows: list[torch.Tensor] = [weight for weight in shadow.parameters() if weight.requires_grad]
    torch._foreach_lerp_(shadows, targets, 1 - decay)


def fit(module: nn.Module, loss_of: Loss, plan: Plan, folder: Path, world: World) -> nn.Module:
    """Trains the module's open parameters and gives back a copy with the averaged weights.

    ``loss_of`` gets the step number and should draw all its randomness from it, so that a
    resumed run takes the same steps; a trial takes a few. Progress is kept in ``folder/<name>.pt``.
    """
    plan = dataclasses.replace(plan, num_steps=budget(plan.num_steps))
    opened = [weight for weight in module.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(
        opened, plan.learning_rate, (0.9, 0.98), weight_decay=plan.weight_decay, foreach=True
    )
    averaged = copy.deepcopy(module)
    start = _resume(folder / f"{plan.name}.pt", module, averaged, optimiser)
    steps = range(start, plan.num_steps)
    bar = tqdm(
        steps, plan.name, plan.num_steps, initial=start, disable=world.rank > 0, mininterval=5
    )
    recent = 0.0
    for step in bar:
        for group in optimiser.param_groups:
            group["lr"] = plan.learning_rate * _factor(step, plan)
        loss = loss_of(step)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(opened, 1.0)
        optimiser.step()
        if world.size > 1 and (step + 1) % _STEPS_APART == 0:
            _average_weights(opened, world)
        _follow(averaged, module, min(plan.ema, (step + 1) / (step + 10)))
        recent = loss.item() if step == start else 0.98 * recent + 0.02 * loss.item()
        bar.set_postfix(loss=f"{recent:.4f}", refresh=False)
        done = step + 1
        if world.rank == 0 and (done % plan.num_between_saves == 0 or done == plan.num_steps):
            _save(folder / f"{plan.name}.pt", done, module, averaged, optimiser)
    return averaged.eval()


def _save(
    path: Path, done: int, module: nn.Module, averaged: nn.Module, optimiser: torch.optim.Optimizer
) -> None:
    state = {
        "done": done,
        "module": module.state_dict(),
        "averaged": averaged.state_dict(),
        "optimiser": optimiser.state_dict(),
    }
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def _resume(
    path: Path, module: nn.Module, averaged: nn.Module, optimiser: torch.optim.Optimizer
) -> int:
    """Loads the progress file if it exists; gives back the number of steps already done."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True, map_location=next(module.parameters()).device)
    module.load_state_dict(state["module"])
    averaged.load_state_dict(state["averaged"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["done"])
