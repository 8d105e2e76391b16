"""Benchmark: the joint between what is kept and what is painted, on 200 pictures made by code.

Each case has a picture, a mask, and what a model might have painted: the picture with an object in
the mask's middle, all of it a few levels off in tone, evenly and unevenly, as autoencoders are.
Softness, noise, and edges that miss each other by a pixel come on top. Pictures are gradients,
textures or edges; in a fourth kind the object reaches the mask's border. Needs no model.

Ways to join: as `paste` does it, without and with `match_tone`; and Poisson blending (Perez et al.
2003), by scipy and as OpenCV's `seamlessClone`. Figures, in grey levels but the first:

- across/inside: mean difference of neighbours across the mask's border over that inside the mask.
- step: how far the difference of the bands on both sides of the border, 8 pixels apart, is from
  what it should be.
- off: how far what is painted is from what it should be, the object apart.
- object: the same of the object.
- kept: pixels that changed where the mask is black.

`--painted` measures the same ways on what the demo model paints: whether the asked colour, shape
and background can be seen, as `training.evaluate` judges, and by how much the joint moved the mean
colour of what was painted deeper than 8 pixels inside the mask, in grey levels.

Run: `python -m benchmarks.seams [--cases 200] [--sheet FILE] [--painted]`.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import splu

from benchmarks.sheet import save
from serve_app.pipelines.compose import Canvas, Pixels, paste
from training.evaluate import score
from training.generate import generate, load, make_cases

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Join = Callable[["Case"], Pixels]

_SIDE_PX = 160
_KINDS = ("gradient", "texture", "edges", "object")
_BAND_PX = 4


@dataclass(frozen=True, slots=True)
class Case:
    """One joint.

    kind: of picture. init: what was there, (H, W, 3). ideal: what should be there now. painted:
    what the model made of it. white: the mask. is_object: the part of the mask that is new.
    """

    kind: str
    init: Pixels
    ideal: Pixels
    painted: Pixels
    white: Bools
    is_object: Bools

    def canvas(self) -> Canvas:
        """As the painter has it."""
        mask = Image.fromarray(self.white.astype(np.uint8) * np.uint8(255))
        height, width = self.white.shape
        return Canvas(Image.fromarray(self.init), mask, (0, 0, width, height))


def make_case(seed: int) -> Case:
    """Make a case; kinds take turns."""
    random = np.random.default_rng(seed)
    kind = _KINDS[seed % len(_KINDS)]
    plain = _scene(kind, random, 0.0)
    white, is_object = _shapes(random, is_wide=kind == "object")
    moved = _scene(kind, np.random.default_rng(seed), float(random.uniform(-1, 1)))
    ideal = np.where(white[..., None], moved, plain)
    ideal[is_object] = random.uniform(30, 225, 3)
    tint = random.uniform(-10, 10, 3) + _waves(random, 3, 2) * 5
    painted = (
        ndimage.gaussian_filter(ideal, (0.4, 0.4, 0)) + tint + random.normal(0, 1, ideal.shape)
    )
    return Case(kind, _bytes(plain), _bytes(ideal), _bytes(painted), white, is_object)


def _bytes(values: NDArray[np.float64]) -> Pixels:
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)


def _waves(random: np.random.Generator, channels: int, coarse: int) -> NDArray[np.float64]:
    """Make smooth noise, (H, W, channels), of about unit spread; coarse: waves along a side."""
    grid = random.standard_normal((coarse + 2, coarse + 2, channels))
    scale = _SIDE_PX / (coarse + 2)
    made: NDArray[np.float64] = ndimage.zoom(grid, (scale, scale, 1), order=3)
    return made[:_SIDE_PX, :_SIDE_PX]


def _scene(kind: str, random: np.random.Generator, shift_px: float) -> NDArray[np.float64]:
    """Draw a picture, (H, W, 3); shift_px: how far its edges lie from where they were."""
    down, across = np.indices((_SIDE_PX, _SIDE_PX)) / _SIDE_PX
    base = random.uniform(70, 185, 3)
    slope = random.uniform(-60, 60, (2, 3))
    picture = base + down[..., None] * slope[0] + across[..., None] * slope[1]
    if kind == "texture":
        picture = picture + _waves(random, 1, int(random.integers(20, 60))) * 14
    if kind == "edges":
        angle, width = random.uniform(0, np.pi), random.uniform(8, 20)
        along = (across * np.cos(angle) + down * np.sin(angle)) * _SIDE_PX + shift_px
        stripes = np.clip(np.sin(along * np.pi / width) * width / 2, -0.5, 0.5)
        picture = picture + stripes[..., None] * random.uniform(30, 70)
    made: NDArray[np.float64] = picture
    return made


def _shapes(random: np.random.Generator, *, is_wide: bool) -> tuple[Bools, Bools]:
    """Draw a mask, an ellipse or a box, and in its middle an object, or down to its border."""
    y, x = np.indices((_SIDE_PX, _SIDE_PX))
    centre = random.uniform(0.4, 0.6, 2) * _SIDE_PX
    radii = random.uniform(0.2, 0.35, 2) * _SIDE_PX
    away = np.stack([(y - centre[0]) / radii[0], (x - centre[1]) / radii[1]])
    size = np.hypot(*away) if random.random() < 0.5 else np.abs(away).max(0)
    is_object = (size < 0.45) | (
        is_wide & (np.abs(x - centre[1]) < radii[1] * 0.4) & (y > centre[0])
    )
    return size < 1, is_object & (size < 1)


def poisson(case: Case) -> Pixels:
    """Solve for the mask's pixels: the painted gradients, the kept values around them.

    The frame's edge says nothing.
    """
    number = np.full(case.white.shape, -1)
    places = np.argwhere(case.white)
    number[case.white] = np.arange(len(places))
    rows: list[int] = []
    columns: list[int] = []
    values: list[float] = []
    painted, kept = case.painted.astype(np.float64), case.init.astype(np.float64)
    wanted, degrees = np.zeros((len(places), 3)), np.zeros(len(places))
    for step in ((0, 1), (1, 0), (0, -1), (-1, 0)):
        beside = places + np.array(step)
        own = np.flatnonzero(((beside >= 0) & (beside < case.white.shape)).all(1))
        here, there = tuple(places[own].T), tuple(beside[own].T)
        wanted[own] += painted[here] - painted[there]
        degrees[own] += 1
        inner = number[there] >= 0
        rows += [*own[inner]]
        columns += [*number[there][inner]]
        values += [-1.0] * int(inner.sum())
        wanted[own[~inner]] += kept[there][~inner]
    rows, columns = [*rows, *range(len(places))], [*columns, *range(len(places))]
    matrix = csc_matrix(([*values, *degrees], (rows, columns)))
    made = kept.copy()
    made[case.white] = splu(matrix).solve(wanted)
    return _bytes(made)


def seamless_clone(case: Case) -> Pixels:
    """Have OpenCV do it; it blends into what lies within the mask's box."""
    mask = case.white.astype(np.uint8) * np.uint8(255)
    top, left, height, width = _box(case.white)
    centre = (left + width // 2, top + height // 2)
    made: Pixels = cv2.seamlessClone(case.painted, case.init, mask, centre, cv2.NORMAL_CLONE)
    return made


def _box(white: Bools) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(white.any(1)), np.flatnonzero(white.any(0))
    top, left, bottom, right = (int(one) for one in (rows[0], columns[0], rows[-1], columns[-1]))
    return top, left, bottom - top + 1, right - left + 1


JOINS: Mapping[str, Join] = {
    "as painted": lambda case: paste(case.painted, case.canvas(), 0),
    "seam": lambda case: paste(case.painted, case.canvas(), 4),
    "match_tone": lambda case: paste(case.painted, case.canvas(), 0, match_tone=True),
    "match_tone, seam (default)": lambda case: paste(
        case.painted, case.canvas(), 4, match_tone=True
    ),
    "match_tone, seam of 12": lambda case: paste(case.painted, case.canvas(), 12, match_tone=True),
    "Poisson (scipy)": poisson,
    "Poisson, seam": lambda case: paste(poisson(case), case.canvas(), 4),
    "seamlessClone (OpenCV)": seamless_clone,
}


def judge(case: Case, made: Pixels) -> tuple[float, float, float, float, float]:
    """Return the figures of a joint, in the order of the module's docstring."""
    values, ideal = made.astype(np.float64), case.ideal.astype(np.float64)
    across: list[NDArray[np.float64]] = []
    inside: list[NDArray[np.float64]] = []
    for axis in (0, 1):
        steps = np.abs(np.diff(values, axis=axis)).mean(2)
        sides = np.diff(case.white.astype(np.int8), axis=axis) != 0
        both = np.minimum(*_neighbours(case.white & ~case.is_object, axis))
        across.append(steps[sides])
        inside.append(steps[both])
    ratio = np.concatenate(across).mean() / np.concatenate(inside).mean()
    apart = values - ideal
    step = np.abs(_bands(apart, case.white)).mean()
    around = case.white & ~case.is_object
    return (
        float(ratio),
        float(step),
        float(np.abs(apart[around]).mean()),
        float(np.abs(apart[case.is_object]).mean()),
        float((made != case.init).any(2)[~case.white].sum()),
    )


def _neighbours(values: Bools, axis: int) -> tuple[Bools, Bools]:
    return (values[1:], values[:-1]) if axis == 0 else (values[:, 1:], values[:, :-1])


def _bands(apart: NDArray[np.float64], white: Bools) -> NDArray[np.float64]:
    """Subtract what lies around the border from what lies inside it, by sector, (8, 3)."""
    depth = ndimage.distance_transform_edt(white) - ndimage.distance_transform_edt(~white)
    y, x = np.indices(white.shape) - np.argwhere(white).mean(0)[:, None, None]
    sector = ((np.arctan2(y, x) / np.pi + 1) * 4).astype(int) % 8
    inner, outer = (np.abs(depth - middle) <= _BAND_PX for middle in (2 * _BAND_PX, -2 * _BAND_PX))
    return np.stack(
        [
            apart[inner & (sector == number)].mean(0) - apart[outer & (sector == number)].mean(0)
            for number in range(8)
        ]
    )


def measure_painted(count: int, folder: Path) -> None:
    """Print a row per way, of pictures that the demo model paints for the cases of its scores."""
    cases = make_cases(count, 1)
    pictures = generate(load(folder / "demo-inpaint"), cases)
    joints = [
        Case("painted", case.picture, picture, picture, white, np.zeros_like(white))
        for case, picture in zip(cases, pictures, strict=True)
        for white in [np.asarray(case.mask) > 0]
    ]
    inside = [ndimage.distance_transform_edt(joint.white) > 2 * _BAND_PX for joint in joints]
    print("| way | colour | shape | background | mean colour moved | greatest |")
    print(f"|---|{'---|' * 5}")
    for name, join in JOINS.items():
        made = [join(joint) for joint in joints]
        moved = [
            np.abs(one[core].mean(0) - joint.painted[core].mean(0)).mean()
            for one, joint, core in zip(made, joints, inside, strict=True)
            if core.any()
        ]
        shares = score(cases, made, regional=True)
        row = [shares.colour, shares.shape, shares.background, np.mean(moved), np.max(moved)]
        print(f"| {name} | {' | '.join(f'{value:.3f}' for value in row)} |", flush=True)


def main() -> None:
    """Print a table over all cases, and by kind what shows most; draw a sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--painted", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path("checkpoints"))
    arguments = parser.parse_args()
    if arguments.painted:
        measure_painted(arguments.cases, arguments.folder)
        return
    cases = [make_case(seed) for seed in range(arguments.cases)]
    heads = [f"{kind}: {name}" for kind in _KINDS for name in ("step", "object")]
    print(f"| way | across/inside | step | off | object | kept | {' | '.join(heads)} |")
    print(f"|---|{'---|' * (5 + len(heads))}")
    for name, join in JOINS.items():
        figures = np.array([judge(case, join(case)) for case in cases])
        kinds = [
            figures[[case.kind == kind for case in cases]][:, [1, 3]].mean(0) for kind in _KINDS
        ]
        row = [*figures.mean(0), *np.concatenate(kinds)]
        print(f"| {name} | {' | '.join(f'{value:.2f}' for value in row)} |", flush=True)
    if arguments.sheet:
        cells = [
            (Image.fromarray(one), name)
            for case in cases[:6]
            for name, one in (
                ("what was there", case.init),
                *((name, join(case)) for name, join in JOINS.items()),
            )
        ]
        save(arguments.sheet, cells, len(JOINS) + 1, _SIDE_PX)


if __name__ == "__main__":
    main()
