"""Forms of adapters: how a file says what is to be added to a layer."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from tests.engine.published.files import Tensors

__all__ = ["FULL", "KOHYA", "LOHA", "OLD", "PEFT", "PROCESSORS", "Form", "as_dora", "draw", "lokr"]

_STRENGTH = 0.8  # of the LoRA that requests name


@dataclass(frozen=True)
class Form:
    """How an adapter says what is to be added to a layer.

    make: tensors by kind, for a shape of weights. dense: what the weights W become by them.
    """

    make: Callable[[torch.Size], Tensors]
    dense: Callable[[Tensors, torch.Tensor], torch.Tensor]


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape) * 0.5


def _up_down(down: str, up: str, alpha: bool) -> Form:
    """down (4, in, ...) and up (out, 4, ...); alpha is 2 or, where there is none, the rank."""

    def make(shape: torch.Size) -> Tensors:
        made = {down: draw(4, *shape[1:]), up: draw(shape[0], 4, *(1,) * (len(shape) - 2))}
        return made | ({"alpha": torch.tensor(2.0)} if alpha else {})

    def dense(own: Tensors, weight: torch.Tensor) -> torch.Tensor:
        product = own[up].flatten(1) @ own[down].flatten(1)
        return weight + _STRENGTH * (0.5 if alpha else 1) * product.view_as(weight)

    return Form(make, dense)


def as_dora(plain: Form, name: str) -> Form:
    """m * V / |V|, with the rows of V = W + product; arXiv 2402.09353, equation 5."""

    def make(shape: torch.Size) -> Tensors:
        lengths = 0.5 + torch.rand(shape[0], *(1,) * (len(shape) - 1))
        return plain.make(shape) | {name: lengths if name == "dora_scale" else lengths.flatten()}

    def dense(own: Tensors, weight: torch.Tensor) -> torch.Tensor:
        summed = plain.dense(own, weight)
        rows = summed.flatten(1)
        gain = own[name].flatten() / rows.norm(dim=1)
        return summed * gain.view(-1, *(1,) * (weight.ndim - 1))

    return Form(make, dense)


def _loha(shape: torch.Size) -> Tensors:
    flat = math.prod(shape[1:])
    own = {f"hada_w{n}_a": 2 * draw(shape[0], 3) for n in (1, 2)}
    own |= {f"hada_w{n}_b": 2 * draw(3, flat) for n in (1, 2)}
    return own | {"alpha": torch.tensor(1.5)}


def _loha_dense(own: Tensors, weight: torch.Tensor) -> torch.Tensor:
    one, other = (own[f"hada_w{n}_a"] @ own[f"hada_w{n}_b"] for n in (1, 2))
    return weight + _STRENGTH * 0.5 * (one * other).view_as(weight)


def lokr(rank: int | None) -> Form:
    def make(shape: torch.Size) -> Tensors:
        outer, inner = shape[0] // 4, shape[1] // 4
        if rank is None:
            return {"lokr_w1": draw(4, 4), "lokr_w2": draw(outer, inner, *shape[2:])}
        flat = inner * math.prod(shape[2:])
        halves = {"lokr_w2_a": draw(outer, rank), "lokr_w2_b": draw(rank, flat)}
        return {"lokr_w1": draw(4, 4), **halves, "alpha": torch.tensor(rank / 2)}

    def dense(own: Tensors, weight: torch.Tensor) -> torch.Tensor:
        second = own["lokr_w2"] if rank is None else own["lokr_w2_a"] @ own["lokr_w2_b"]
        second = second.reshape(weight.shape[0] // 4, weight.shape[1] // 4, *weight.shape[2:])
        rows = [torch.cat([one * second for one in row], 1) for row in own["lokr_w1"]]
        return weight + _STRENGTH * (1 if rank is None else 0.5) * torch.cat(rows)

    return Form(make, dense)


KOHYA = _up_down("lora_down.weight", "lora_up.weight", alpha=True)
PEFT = _up_down("lora_A.weight", "lora_B.weight", alpha=False)
OLD = _up_down("lora.down.weight", "lora.up.weight", alpha=False)
PROCESSORS = _up_down("down.weight", "up.weight", alpha=False)
LOHA = Form(_loha, _loha_dense)
FULL = Form(
    lambda shape: {"diff": draw(*shape)}, lambda own, weight: weight + _STRENGTH * own["diff"]
)
