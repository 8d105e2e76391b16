"""Trains the textual inversion: ``<sun>``, a thing that the vocabulary has no word for.

Run as ``python -m training.embedding``. Only two rows of the token table are trained, against
both denoisers, so that the file works with either checkpoint. They start as words for something
else and see pictures of yellow circles, whose captions name neither.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from training.adapt import Lesson, Models, make_loss
from training.loop import Plan, World, fit, run_part
from training.mask import Task, random_task
from training.sampling import Wish, random_background
from training.text import build_tokenizer
from training.unet import plain_task

__all__ = ["THING", "TOKEN"]

TOKEN = "<sun>"
THING = ("yellow", "circle")
_TOKENS = (TOKEN, f"{TOKEN}_1")  # as diffusers names the rows of one embedding
_PARENTS = ("white", "square")
_NUM_STEPS = 500


def _sun_task(
    make_task: Callable[[np.random.Generator, int, Wish], Task],
    rng: np.random.Generator,
    size_px: int,
) -> Task:
    """Draws a task that asks for the thing."""
    size = str(rng.choice(["", "", "small", "big"]))
    colour, shape = THING
    return make_task(rng, size_px, Wish(colour, shape, size, random_background(rng, colour)))


def _reword(caption: str) -> str:
    colour, shape = THING
    return caption.replace(f"{colour} ", "", 1).replace(shape, " ".join(_TOKENS), 1)


def _worker(world: World, folder: Path) -> None:
    torch.manual_seed(2)
    models = Models(folder)
    tokenizer = build_tokenizer()
    parents = [tokenizer.convert_tokens_to_ids(f"{name}</w>") for name in _PARENTS]
    tokenizer.add_tokens(list(_TOKENS))
    table = models.text.resize_token_embeddings(len(tokenizer), mean_resizing=False).weight
    with torch.no_grad():
        table[-len(_TOKENS) :] = table[parents]
    table.requires_grad_(True)
    only_new = torch.zeros(len(table), 1, device=table.device)
    only_new[-len(_TOKENS) :] = 1
    table.register_hook(lambda gradient: gradient * only_new)
    makers = {
        "inpaint": partial(_sun_task, random_task),
        "plain": partial(_sun_task, plain_task),
    }
    lesson = Lesson("embedding", makers, _reword, num_tasks=128)
    loss_of = make_loss(models, tokenizer, lesson, folder, world)
    plan = Plan("embedding", _NUM_STEPS, 2e-2, 10, ema=0.95, weight_decay=0.0)
    averaged = fit(models, loss_of, plan, folder, world)
    if world.rank == 0:
        assert isinstance(averaged, Models), "fit keeps the type"
        table = averaged.text.get_input_embeddings().weight
        rows = table[-len(_TOKENS) :].detach().half().contiguous()
        save_file({TOKEN: rows.cpu()}, folder / "embedding.safetensors")


def main() -> None:
    """Trains the embedding and writes it in the diffusers format."""
    options = run_part(_worker, __doc__)
    data = (options.work / "embedding.safetensors").read_bytes()
    (options.out / "demo-embedding.safetensors").write_bytes(data)


if __name__ == "__main__":
    main()
