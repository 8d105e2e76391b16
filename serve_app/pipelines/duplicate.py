"""`duplicate`: a copy of what holds modules, with its weights on another device."""

import copy
from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import nn

__all__ = ["duplicate"]

T = TypeVar("T")


def duplicate(thing: T, modules: Iterable[nn.Module], device: torch.device | str) -> T:
    """Copy a thing; the weights of its modules go to the device, and nowhere else meanwhile."""
    moved: dict[int, object] = {}  # what `deepcopy` takes as copied already
    for module in modules:
        for weight in module.parameters():
            copied = weight.detach().to(device, copy=True)
            moved[id(weight)] = nn.Parameter(copied, requires_grad=False)
        moved |= {id(buffer): buffer.to(device, copy=True) for buffer in module.buffers()}
    return copy.deepcopy(thing, moved)
