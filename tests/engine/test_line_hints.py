"""Soft edges, drawings and straight lines: what the published networks' arithmetic gives.

Weights are random, in the published names and shapes; the arithmetic is written out in functions.
"""

import itertools
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional

from serve_app import errors
from serve_app.config import HintsConfig
from serve_app.images import codec
from serve_app.pipelines.hints import lines
from serve_app.pipelines.hints.hint_models import HintModels
from serve_app.pipelines.hints.line_networks import DrawingNetwork, EdgeNetwork
from serve_app.types import ControlType, Picture

Tensors = dict[str, torch.Tensor]
SEEN = (1024, 64)  # of a picture of a quarter of its sides


def affine(name: str, shape: tuple[int, ...], bias: int | None = None) -> Tensors:
    weight = torch.randn(shape) * (2 / np.prod(shape[1:])) ** 0.5
    return {f"{name}.weight": weight} | ({f"{name}.bias": torch.randn(bias) * 0.1} if bias else {})


def edges() -> Tensors:
    tensors = {"norm": torch.tensor([120.0, 110.0, 100.0]).view(1, 3, 1, 1)}
    widths = [3, 64, 128, 256, 512, 512]
    for number, depth in enumerate((2, 2, 3, 3, 3), 1):
        inward, outward = widths[number - 1 : number + 1]
        for conv in range(depth):
            shape = (outward, outward if conv else inward, 3, 3)
            tensors |= affine(f"block{number}.convs.{conv}", shape, outward)
        projection = affine(f"block{number}.projection", (1, outward, 1, 1), 1)
        tensors |= {name: value * 0.02 for name, value in projection.items()}
    return tensors


def edges_of(pixels: torch.Tensor, weights: Tensors) -> np.ndarray:
    features, maps = pixels - weights["norm"], []
    for number, depth in enumerate((2, 2, 3, 3, 3), 1):
        if number > 1:
            features = functional.max_pool2d(features, 2, 2)
        for conv in range(depth):
            name = f"block{number}.convs.{conv}"
            features = conv_of(features, weights, name, padding=1).relu()
        told = conv_of(features, weights, f"block{number}.projection")[0, 0].numpy()
        maps.append(cv2.resize(told, pixels.shape[:1:-1], interpolation=cv2.INTER_LINEAR))
    return 1 / (1 + np.exp(-np.mean(maps, axis=0, dtype=np.float64)))


def conv_of(features: torch.Tensor, weights: Tensors, name: str, **how: int) -> torch.Tensor:
    return functional.conv2d(
        features, weights[f"{name}.weight"], weights.get(f"{name}.bias"), **how
    )


def soft(pixels: torch.Tensor, weights: Tensors) -> np.ndarray:
    return edges_of(pixels, weights) * 255


def in_levels(pixels: torch.Tensor, weights: Tensors) -> np.ndarray:
    return np.floor(edges_of(pixels, weights) * 3) / 2 * 255


def drawing() -> Tensors:
    tensors = affine("model0.1", (64, 3, 7, 7), 64)
    tensors |= affine("model1.0", (128, 64, 3, 3), 128) | affine("model1.3", (256, 128, 3, 3), 256)
    for block, conv in itertools.product(range(3), (1, 5)):
        tensors |= affine(f"model2.{block}.conv_block.{conv}", (256, 256, 3, 3), 256)
    tensors |= affine("model3.0", (256, 128, 3, 3), 128) | affine("model3.3", (128, 64, 3, 3), 64)
    return tensors | affine("model4.1", (1, 64, 7, 7), 1)


def drawing_of(pixels: torch.Tensor, weights: Tensors) -> np.ndarray:
    def mirrored(features: torch.Tensor, name: str, margin: int) -> torch.Tensor:
        return conv_of(functional.pad(features, (margin,) * 4, "reflect"), weights, name)

    def larger(features: torch.Tensor, name: str) -> torch.Tensor:
        parts = (weights[f"{name}.weight"], weights[f"{name}.bias"])
        return functional.conv_transpose2d(features, *parts, stride=2, padding=1, output_padding=1)

    even = functional.instance_norm
    features = even(mirrored(pixels / 255, "model0.1", 3)).relu()
    for name in ("model1.0", "model1.3"):
        features = even(conv_of(features, weights, name, stride=2, padding=1)).relu()
    for block in range(3):
        inner = even(mirrored(features, f"model2.{block}.conv_block.1", 1)).relu()
        features = features + even(mirrored(inner, f"model2.{block}.conv_block.5", 1))
    for name in ("model3.0", "model3.3"):
        features = even(larger(features, name)).relu()
    return 255 - mirrored(features, "model4.1", 3).sigmoid()[0, 0].numpy() * 255


INVERTED = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1))


def inverted() -> list[tuple[str, int, int, int, int]]:
    """List the blocks of MobileNetV2: name, expansion, width before and after, stride."""
    blocks, before = [], 32
    for expansion, width, count, stride in INVERTED:
        for number in range(count):
            name = f"backbone.features.{len(blocks) + 1}.conv"
            blocks.append((name, expansion, before, width, 1 if number else stride))
            before = width
    return blocks


def norm(name: str, width: int) -> Tensors:
    return {
        f"{name}.weight": torch.rand(width) + 0.5,
        f"{name}.bias": torch.randn(width) * 0.1,
        f"{name}.running_mean": torch.randn(width) * 0.1,
        f"{name}.running_var": torch.rand(width) + 0.5,
        f"{name}.num_batches_tracked": torch.tensor(7),
    }


def wires() -> Tensors:
    first = "backbone.features.0"
    tensors = affine(f"{first}.0", (32, 4, 3, 3)) | norm(f"{first}.1", 32)
    for name, expansion, before, width, _ in inverted():
        wide, at = before * expansion, 0
        if expansion > 1:
            tensors |= affine(f"{name}.0.0", (wide, before, 1, 1)) | norm(f"{name}.0.1", wide)
            at = 1
        tensors |= affine(f"{name}.{at}.0", (wide, 1, 3, 3)) | norm(f"{name}.{at}.1", wide)
        tensors |= affine(f"{name}.{at + 1}", (width, wide, 1, 1)) | norm(f"{name}.{at + 2}", width)
    sides = {15: (96, 64), 17: (64, 32), 19: (64, 24), 21: (64, 16)}
    for number, inward in sides.items():
        for conv, width in zip((1, 2), inward, strict=True):
            name = f"block{number}.conv{conv}"
            tensors |= affine(f"{name}.0", (64, width, 1, 1), 64) | norm(f"{name}.1", 64)
        for conv, width in ((1, 128), (2, 64)):
            name = f"block{number + 1}.conv{conv}"
            tensors |= affine(f"{name}.0", (width, 128, 3, 3), width) | norm(f"{name}.1", width)
    for conv in (1, 2):
        name = f"block23.conv{conv}"
        tensors |= affine(f"{name}.0", (64, 64, 3, 3), 64) | norm(f"{name}.1", 64)
    tensors |= affine("block23.conv3", (16, 64, 1, 1), 16)
    tensors["block23.conv3.weight"][7] *= 0.1  # no two middles are alike in float32
    tensors["block23.conv3.weight"][8:] *= 20  # lines of some length
    return tensors


def normed(features: torch.Tensor, weights: Tensors, name: str) -> torch.Tensor:
    keys = ("running_mean", "running_var", "weight", "bias")
    return functional.batch_norm(features, *(weights[f"{name}.{key}"] for key in keys))


def wires_of(pixels: torch.Tensor, weights: Tensors) -> np.ndarray:
    def cut(features: torch.Tensor, name: str, **how: int) -> torch.Tensor:
        if how.get("stride", 1) == 2:
            features = functional.pad(features, (0, 1, 0, 1))
        return normed(conv_of(features, weights, f"{name}.0", **how), weights, f"{name}.1").clamp(
            0, 6
        )

    def plain(features: torch.Tensor, name: str, **how: int) -> torch.Tensor:
        return normed(conv_of(features, weights, f"{name}.0", **how), weights, f"{name}.1").relu()

    whole = torch.cat((pixels, torch.ones_like(pixels[:, :1])), 1) / 127.5 - 1
    layers = [cut(whole, "backbone.features.0", stride=2)]
    for name, expansion, before, width, stride in inverted():
        features, at, wide = layers[-1], 0, before * expansion
        if expansion > 1:
            features, at = cut(features, f"{name}.0"), 1
        # Without a stride pixels around are looked at, with one those behind.
        around = {"stride": 2} if stride == 2 else {"padding": 1}
        features = cut(features, f"{name}.{at}", groups=wide, **around)
        features = normed(
            conv_of(features, weights, f"{name}.{at + 1}"), weights, f"{name}.{at + 2}"
        )
        layers.append(features + layers[-1] if stride == 1 and before == width else features)
    joined = layers[13]
    for number, layer in zip((15, 17, 19, 21), (10, 6, 3, 1), strict=True):
        coarse = plain(joined, f"block{number}.conv1")
        if number > 15:
            coarse = functional.interpolate(
                coarse, scale_factor=2, mode="bilinear", align_corners=True
            )
        joined = torch.cat((plain(layers[layer], f"block{number}.conv2"), coarse), 1)
        joined = plain(joined, f"block{number + 1}.conv1", padding=1) + joined
        joined = plain(joined, f"block{number + 1}.conv2", padding=1)
    joined = plain(joined, "block23.conv1", padding=5, dilation=5)
    joined = plain(joined, "block23.conv2", padding=1)
    return straight(conv_of(joined, weights, "block23.conv3")[0, 7:])


def straight(told: torch.Tensor) -> np.ndarray:
    """Draw the 200 best middles of lines that no neighbour beats; ends are told from them."""
    canvas = np.zeros(SEEN[::-1], np.uint8)
    score = 1 / (1 + np.exp(-told[0].double().numpy()))
    padded = np.pad(score, 1)
    height, width = score.shape
    around = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    peaks = [(score[y, x], y, x) for y, x in np.argwhere(score == np.max(around, axis=0))]
    for value, y, x in sorted(peaks, reverse=True)[:200]:
        ends = told[1:5, y, x].tolist()
        if value > 0.1 and np.hypot(ends[0] - ends[2], ends[1] - ends[3]) > 0.1:
            start, stop = ((int(2 * (x + ends[at])), int(2 * (y + ends[at + 1]))) for at in (0, 2))
            cv2.line(canvas, start, stop, 255, 1)
    return canvas


CASES: dict[str, tuple[str, Callable[[], Tensors], Callable[..., np.ndarray]]] = {
    "hed": ("softedge", edges, soft),
    "softedge": ("softedge", edges, in_levels),
    "lineart": ("lineart", drawing, drawing_of),
    "mlsd": ("mlsd", wires, wires_of),
}


def picture() -> Image.Image:
    small = np.random.default_rng(1).integers(0, 256, (3, 40, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((256, 16), Image.Resampling.BICUBIC)


def drawn(file: Path, hint: str, image: Image.Image | None = None) -> np.ndarray:
    models = HintModels(HintsConfig.model_validate({CASES[hint][0]: file}))
    (made,) = models.draw((ControlType(hint),), (codec.encode(image or picture()),))
    assert isinstance(made, Picture)
    return np.asarray(codec.to_image(made)).astype(int)


@pytest.mark.parametrize(
    ("network", "make", "compute"),
    [(EdgeNetwork, edges, edges_of), (DrawingNetwork, drawing, drawing_of)],
)
@torch.inference_mode()
def test_network_is_what_the_arithmetic_gives(
    network: type[torch.nn.Module], make: Callable[[], Tensors], compute: Callable[..., np.ndarray]
) -> None:
    torch.manual_seed(6)
    weights, pixels = make(), torch.rand(1, 3, 16, 32) * 255
    with torch.device("meta"):
        built = network()
    built.load_state_dict(weights, assign=True)
    is_drawing = network is DrawingNetwork
    made = built.eval()(pixels / 255 if is_drawing else pixels)[0, 0].numpy()
    wanted = compute(pixels, weights)
    assert np.ptp(wanted) > 0.05
    assert np.abs((255 - 255 * made if is_drawing else made) - wanted).max() < 1e-3


@pytest.mark.parametrize(
    "hint",
    [one if one == "mlsd" else pytest.param(one, marks=pytest.mark.slow) for one in CASES],
)
@torch.inference_mode()
def test_hint_is_what_the_arithmetic_gives(hint: str, tmp_path: Path) -> None:
    _, make, compute = CASES[hint]
    torch.manual_seed(6)
    weights = make()
    save_file(weights, tmp_path / "weights.safetensors")
    made = drawn(tmp_path / "weights.safetensors", hint)
    assert made.shape == (16, 256, 3)
    assert (made == made[..., :1]).all()
    seen = cv2.resize(np.asarray(picture()), SEEN, interpolation=cv2.INTER_LANCZOS4)
    levels = compute(torch.tensor(seen).permute(2, 0, 1)[None].float(), weights)
    wanted = cv2.resize(
        levels.clip(0, 255).astype(np.uint8), picture().size, interpolation=cv2.INTER_LINEAR
    )
    assert np.ptp(made) > 50
    is_apart = np.abs(made[..., 0] - wanted) > 1
    assert is_apart.mean() <= (0.002 if hint == "softedge" else 0)  # where a level begins


@pytest.mark.parametrize(
    ("hint", "size"),
    [
        *(("mlsd", size) for size in ((8, 8), (8, 1024), (64, 40))),
        *((hint, (64, 40)) for hint in ("softedge", "lineart")),
    ],
    ids=str,
)
def test_hint_of_any_size_is_a_picture_of_that_size(
    hint: str, size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "_SHORTER_PX", 64)
    save_file(CASES[hint][1](), tmp_path / "weights.safetensors")
    made = drawn(tmp_path / "weights.safetensors", hint, Image.new("RGB", size))
    assert made.shape == (size[1], size[0], 3)


def spoil(file: Path) -> None:
    save_file({name: tensor / 0 for name, tensor in load_file(file).items()}, file)


def shorten(file: Path) -> None:
    tensors = load_file(file)
    tensors.pop(next(name for name in tensors if name.endswith("weight")))
    save_file(tensors, file)


@pytest.mark.parametrize(
    "harm",
    [spoil, shorten, Path.unlink, lambda file: file.write_bytes(b"\0" * 64)],
    ids=["nan", "a-layer-short", "no-file", "no-safetensors"],
)
def test_bad_file_fails_the_job_and_no_path_is_told(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    file = tmp_path / "weights.safetensors"
    save_file(wires(), file)
    harm(file)
    with pytest.raises(errors.GenerationFailed, match=r"hints\.mlsd") as failure:
        drawn(file, "mlsd")
    assert str(tmp_path) not in failure.value.public_message


def test_lines_are_where_no_neighbour_scores_higher() -> None:
    told = torch.full((9, 16, 16), -9.0)
    told[0, 3, 4], told[0, 3, 5], told[0, 2, 4] = 4.0, 3.0, 2.0
    told[1:5] = torch.tensor([-30.0, 0.0, 30.0, 0.0])[:, None, None]
    assert lines._likely(told) == [[4.0, 3.0, -30.0, 0.0, 30.0, 0.0]]
