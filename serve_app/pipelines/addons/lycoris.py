"""`in_pairs`: what LyCORIS adds to a layer, as a pair of matrices that adds the same.

A LoHa adds (w1_a @ w1_b) * (w2_a @ w2_b), a LoKr kron(w1, w2), each times alpha / rank; a full
difference adds what it holds. Each matrix may be whole, a product, or a product with a core for the
kernel of a convolution ("tucker"). All of these are sums of outer products, so that a pair holds
them exactly, of a higher rank.

Source: `lycoris/functional/loha.py`, `lokr.py` and `lycoris/modules/full.py` of https://github.com/KohakuBlueleaf/LyCORIS.
"""

import re
from collections.abc import Mapping

import torch

from serve_app import errors
from serve_app.pipelines.addons.misfit import Unfit

__all__ = ["in_pairs"]

Tensors = dict[str, torch.Tensor]
Factors = tuple[torch.Tensor, torch.Tensor]  # up (out, r), down (r, in, ...)

_NAME = re.compile(
    r"(?P<layer>.+?)\.(?P<kind>(?:hada|lokr|lora)_(?:w[12](?:_[ab])?|t[12]|mid)|diff)(?:\.weight)?"
)
_HALVES = (("lora_down.weight", "lora_up.weight"), ("lora_A.weight", "lora_B.weight"))


def in_pairs(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """Replace what is of LyCORIS by the two matrices of a LoRA; the rest stays as it is.

    Matrices for a convolution are flat, (r, in * height * width), where the file has them so.

    Raises:
        Unfit: a layer lacks a matrix or has one too many, or their shapes do not fit.
    """
    layers: dict[str, dict[str, torch.Tensor]] = {}
    rest: Tensors = {}
    for name, tensor in tensors.items():
        if match := _NAME.fullmatch(name):
            layers.setdefault(match["layer"], {})[match["kind"]] = tensor
        else:
            rest[name] = tensor
    for layer, own in layers.items():
        down_name, up_name = (f"{layer}.{half}" for half in _HALVES["." in layer])
        if own.keys() == {"lora_mid"}:
            rest[down_name] = _with_core(own["lora_mid"], rest.get(down_name), layer)
            continue
        if up_name in rest or down_name in rest:
            raise Unfit(f"two adapters for {errors.echoed(layer)}", "one")
        alpha = rest.pop(f"{layer}.alpha", None)
        rest[up_name], rest[down_name] = _pair(layer, own, alpha)
        if "." not in layer:  # there is nothing more to scale, which some want to be told
            rest[f"{layer}.alpha"] = torch.tensor(float(len(rest[down_name])))
    return rest


def _pair(layer: str, own: Mapping[str, torch.Tensor], alpha: torch.Tensor | None) -> Factors:
    form = next(iter(own))[:4]
    make = {"hada": _loha, "lokr": _lokr, "diff": _full}.get(form)
    kinds = {name.removeprefix(f"{form}_"): tensor.float() for name, tensor in own.items()}
    try:
        if make is None or len(kinds) != len(own) or any(name[:4] != form for name in own):
            raise KeyError
        up, down, rank = make(kinds)
    except (KeyError, RuntimeError, IndexError) as exc:
        found = f"{', '.join(sorted(own))} for {errors.echoed(layer)}"
        raise Unfit(found, "the matrices of a LoHa or LoKr, in shapes that fit") from exc
    scaled = up * _scale(layer, alpha, rank)
    return scaled.view(*up.shape, *[1] * (down.ndim - 2)), down


def _scale(layer: str, alpha: torch.Tensor | None, rank: int | None) -> float:
    """Return alpha/rank; matrices that are whole have none, whatever their alpha."""
    if rank is None:
        return 1.0
    if alpha is None:
        if "." in layer:  # peft's names; peft has alpha in a file beside
            raise Unfit(f"no alpha for {errors.echoed(layer)}", "an alpha for each layer")
        return 1.0
    if alpha.numel() != 1:
        raise Unfit(f"{layer}.alpha of the shape {tuple(alpha.shape)}", "one number")
    return float(alpha) / rank


def _full(own: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, None]:
    if own.keys() != {"diff"} or own["diff"].ndim not in (2, 4) or not own["diff"].numel():
        raise KeyError
    return *_whole(own["diff"]), None


def _loha(own: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, int]:
    has_cores = _check_kinds(own, {"w1_a", "w1_b", "w2_a", "w2_b"}, {"t1", "t2"})
    halves = [
        _product(own[f"w{n}_a"], own[f"w{n}_b"], own[f"t{n}"] if has_cores else None)
        for n in (1, 2)
    ]
    (up_1, down_1), (up_2, down_2) = halves
    up = torch.einsum("oi,oj->oij", up_1, up_2).flatten(1)  # each column with each other
    down = torch.einsum("i...,j...->ij...", down_1, down_2).flatten(0, 1)
    return *_smaller(up, down), len(own["w1_b"])


def _lokr(own: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, int | None]:
    if "w1" in own and own["w1"].ndim != 2:
        raise KeyError
    first, rank_1 = _factors(own, "w1", None)
    second, rank_2 = _factors(own, "w2", own.get("t2"))
    used = {"w1"} if rank_1 is None else {"w1_a", "w1_b"}
    used |= {"w2"} if rank_2 is None else {"w2_a", "w2_b"}
    _check_kinds(own, used, {"t2"} if rank_2 is not None else set())
    up = torch.kron(first[0], second[0])
    kernel = [1] * (second[1].ndim - 2)
    down = torch.kron(first[1].view(*first[1].shape, *kernel), second[1])
    return up, down, rank_1 if rank_2 is None else rank_2


def _check_kinds(own: Mapping[str, torch.Tensor], wanted: set[str], optional: set[str]) -> bool:
    """Return whether the optional ones are there; KeyError: others are, or not all."""
    if own.keys() not in (wanted, wanted | optional):
        raise KeyError
    return bool(optional) and optional <= own.keys()


def _factors(
    own: Mapping[str, torch.Tensor], name: str, core: torch.Tensor | None
) -> tuple[Factors, int | None]:
    """Return one of the two matrices of a LoKr as a product, and its rank; None: it is whole."""
    if name in own:
        return _whole(own[name]), None
    return _product(own[f"{name}_a"], own[f"{name}_b"], core), len(own[f"{name}_b"])


def _product(a: torch.Tensor, b: torch.Tensor, core: torch.Tensor | None) -> Factors:
    """Return a and b as up and down; with a core, a is (r, out), b (r, in), core (r, r, ...)."""
    up = a if core is None else a.T.contiguous()
    if a.ndim != 2 or b.ndim != 2 or up.shape[1] != len(b) or not b.numel():
        raise KeyError
    return (up, b) if core is None else (up, torch.einsum("ij...,jn->in...", core, b).contiguous())


def _whole(weight: torch.Tensor) -> Factors:
    """Return a matrix as a product with the identity, of the smaller rank."""
    rows, columns = len(weight), weight[0].numel()
    if columns < rows:
        identity = torch.eye(columns).view(columns, *weight.shape[1:])
        return weight.flatten(1), identity
    return torch.eye(rows), weight


def _smaller(up: torch.Tensor, down: torch.Tensor) -> Factors:
    """Multiply out where the product as a whole has a smaller rank."""
    if len(down) <= min(len(up), down[0].numel()):
        return up, down
    return _whole((up @ down.flatten(1)).view(len(up), *down.shape[1:]))


def _with_core(core: torch.Tensor, down: torch.Tensor | None, layer: str) -> torch.Tensor:
    """Return the lower half of a LoCon with the core between its halves: (r, in, height, width)."""
    if down is None or down.ndim != 4 or down.shape[2:] != (1, 1) or core.ndim != 4:
        raise Unfit(f"a core without its halves for {errors.echoed(layer)}", "a core between them")
    if core.shape[1] != len(down):
        raise Unfit(f"a core of the shape {tuple(core.shape)} for {layer}", "one for its halves")
    return torch.einsum("ijhw,jn->inhw", core.float(), down.flatten(1).float())
