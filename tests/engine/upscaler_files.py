"""Upscalers as people share them, small, in each published way to name their tensors."""

import math
from collections.abc import Callable, Iterator

import torch
from torch.nn import functional

Tensors = dict[str, torch.Tensor]
FEATURES, GROWTH, BLOCKS, LAYERS = 12, 4, 2, 2
_NEW = ("conv_first", "body.{}.rdb{}.conv{}", "conv_body", "conv_up{}", "conv_hr", "conv_last")
_BSRGAN = (
    *("conv_first", "RRDB_trunk.{}.RDB{}.conv{}", "trunk_conv", "upconv{}"),
    *("HRconv", "conv_last"),
)


def affine(name: str, made: int, seen: int) -> Tensors:
    weight = torch.randn(made, seen, 3, 3) * (0.4 / seen**0.5)
    return {f"{name}.weight": weight, f"{name}.bias": torch.randn(made) * 0.05}


def esrgan(names: tuple[str, ...], ups: int, channels: int = 3) -> Tensors:
    """Names: of the first layer, those of the blocks, after them, the enlarging, the last two."""
    first, block, body, up, high, last = names
    tensors = affine(first, FEATURES, channels)
    for number in range(BLOCKS):
        for part in (1, 2, 3):
            for conv in range(5):
                made = FEATURES if conv == 4 else GROWTH
                name = block.format(number, part, conv + 1)
                tensors |= affine(name, made, FEATURES + conv * GROWTH)
    tensors |= affine(body, FEATURES, FEATURES)
    for number in range(ups):
        tensors |= affine(up.format(number + 1, 3 * number + 3), FEATURES, FEATURES)
    return tensors | affine(high, FEATURES, FEATURES) | affine(last, 3, FEATURES)


def old(ups: int) -> Tensors:
    """The layers' numbers are their names; two without weights follow each that enlarges."""
    ends = (f"model.{3 * ups + 2}", f"model.{3 * ups + 4}")
    block = "model.1.sub.{}.RDB{}.conv{}.0"
    return esrgan(("model.0", block, f"model.1.sub.{BLOCKS}", "model.{1}", *ends), ups)


def compact(scale: int) -> Tensors:
    tensors = affine("body.0", FEATURES, 3) | {"body.1.weight": torch.rand(FEATURES)}
    for layer in range(1, LAYERS + 1):
        tensors |= affine(f"body.{2 * layer}", FEATURES, FEATURES)
        tensors[f"body.{2 * layer + 1}.weight"] = torch.rand(FEATURES)
    return tensors | affine(f"body.{2 * LAYERS + 2}", 3 * scale**2, FEATURES)


FORMS: dict[str, tuple[int, Callable[[], Tensors]]] = {  # with the factor
    "old-x1": (1, lambda: old(0)),
    "old-x2": (2, lambda: old(1)),
    "old-x4": (4, lambda: old(2)),
    "old-x8": (8, lambda: old(3)),
    "bsrgan-x2": (2, lambda: esrgan(_BSRGAN, 1)),
    "bsrgan-x4": (4, lambda: esrgan(_BSRGAN, 2)),
    "new-x1": (1, lambda: esrgan(_NEW, 2, 48)),
    "new-x2": (2, lambda: esrgan(_NEW, 2, 12)),
    "new-x4": (4, lambda: esrgan(_NEW, 2)),
    "compact-x1": (1, lambda: compact(1)),
    "compact-x2": (2, lambda: compact(2)),
    "compact-x3": (3, lambda: compact(3)),
    "compact-x4": (4, lambda: compact(4)),
}


def nearest() -> Tensors:
    """Weights by hand: of each pixel this makes a square of four."""
    tensors = {name: torch.zeros_like(tensor) for name, tensor in old(1).items()}
    for name in ("model.0", "model.3", "model.5", "model.7"):
        for colour in range(3):
            tensors[f"{name}.weight"][colour, colour, 1, 1] = 1
    return tensors


def by_hand(tensors: Tensors, picture: torch.Tensor, scale: int) -> torch.Tensor:
    """Compute what a network of these tensors makes of a picture (1, 3, H, W)."""
    compute = _by_hand_compact if "body.0.weight" in tensors else _by_hand
    return compute(tensors, picture, scale)


def _ordered(tensors: Tensors) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the convolutions in the order in which they run, which is that of the makers above."""
    for name, weight in tensors.items():
        if weight.ndim == 4:
            yield weight, tensors[name.replace(".weight", ".bias")]


def _by_hand(tensors: Tensors, picture: torch.Tensor, scale: int) -> torch.Tensor:
    """Compute ESRGAN's generator as the paper has it, with nothing but convolutions."""

    def conv(x: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(x, *next(convs), padding=1)

    def bent(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x > 0, x, 0.2 * x)

    convs = _ordered(tensors)
    channels = next(iter(tensors.values())).shape[1]
    side = round((channels / 3) ** 0.5)
    height, width = picture.shape[2:]
    squares = picture.reshape(1, 3, height // side, side, width // side, side)
    x = first = conv(squares.permute(0, 1, 3, 5, 2, 4).reshape(1, channels, height // side, -1))
    for _ in range(2):
        block = x
        for _ in range(3):
            seen = x
            for _ in range(4):
                seen = torch.cat((seen, bent(conv(seen))), 1)
            x = x + 0.2 * conv(seen)
        x = block + 0.2 * x
    x = first + conv(x)
    for _ in range(round(math.log2(scale * side))):
        x = bent(conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3)))
    return conv(bent(conv(x)))


def _by_hand_compact(tensors: Tensors, picture: torch.Tensor, scale: int) -> torch.Tensor:
    slopes = [own for name, own in tensors.items() if own.ndim == 1 and name.endswith("weight")]
    x, convs = picture, list(_ordered(tensors))
    for (weight, bias), slope in zip(convs[:-1], slopes, strict=True):
        x = functional.conv2d(x, weight, bias, padding=1)
        x = torch.where(x > 0, x, slope[:, None, None] * x)
    x = functional.conv2d(x, *convs[-1], padding=1)
    height, width = picture.shape[2:]
    squares = x.reshape(1, 3, scale, scale, height, width).permute(0, 1, 4, 2, 5, 3)
    plain = picture.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    return plain + squares.reshape(plain.shape)
