"""Judges a picture of the domain: which colour, which shape, which background.

Plain image processing, no network, so that it can be checked on drawn pictures. The background
is a fitted plane per channel; the object is what lies nearer to the odd colour than to it.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from training.domain import BACKGROUNDS, COLOURS, INK, LORA_SHAPE, SHAPES
from training.shapes import template

__all__ = ["WORK_PX", "Verdict", "find_object", "judge"]

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
WORK_PX = 128
_BOX_PX = 48
_MIN_CONTRAST = 24.0
_MIN_OVERLAP = 0.65


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was seen; empty words where there is no object.

    ``overlap`` is the IoU with the named shape, ``ink`` the share of dark pixels in the outer
    band of the object minus that inside, ``rgb`` the object's mean colour, ``stain`` the mean
    distance of the other pixels in the region from the fitted background, in grey levels.
    """

    colour: str
    shape: str
    background: str
    overlap: float
    ink: float
    rgb: tuple[float, float, float]
    stain: float


def find_object(picture: npt.NDArray[np.uint8]) -> Flags:
    """Marks the object of a picture (H, W, 3) uint8; (WORK_PX, WORK_PX), of none all false."""
    small = np.asarray(Image.fromarray(picture).resize((WORK_PX, WORK_PX)), np.float32)
    plane = _background(small)
    distance = np.linalg.norm(small - plane, axis=2)
    return _object(small, plane, distance, np.ones((WORK_PX, WORK_PX), bool))


def judge(picture: npt.NDArray[np.uint8], region: Flags | None = None) -> Verdict:
    """Judges (H, W, 3) uint8; ``region`` (H, W) limits the search to the repainted part."""
    small = np.asarray(Image.fromarray(picture).resize((WORK_PX, WORK_PX)), np.float32)
    inside = np.ones((WORK_PX, WORK_PX), bool)
    if region is not None:
        inside = np.asarray(Image.fromarray(region).resize((WORK_PX, WORK_PX)))
    plane = _background(small)
    background = _nearest(plane.mean((0, 1)), dict(BACKGROUNDS))
    distance = np.linalg.norm(small - plane, axis=2)
    solid = _object(small, plane, distance, inside)
    around = inside & ~ndimage.binary_dilation(solid, iterations=12)
    stain = float(distance[around].mean()) if around.any() else 0.0
    if solid.sum() < 30:
        return Verdict("", "", background, 0.0, 0.0, (0.0, 0.0, 0.0), stain)
    rgb = np.median(small[ndimage.binary_erosion(solid) | _core(solid)], axis=0)
    shape, overlap = _best_shape(solid)
    ink = _ink(small, _whole(plane, distance, inside))
    colour = _nearest(rgb, dict(COLOURS))
    return Verdict(colour, shape, background, overlap, ink, _triple(rgb), stain)


def _triple(rgb: Floats) -> tuple[float, float, float]:
    return float(rgb[0]), float(rgb[1]), float(rgb[2])


def _nearest(rgb: Floats, palette: dict[str, tuple[int, int, int]]) -> str:
    return min(palette, key=lambda name: float(np.linalg.norm(rgb - np.array(palette[name]))))


def _core(solid: Flags) -> Flags:
    """Keeps at least the deepest pixels of a thin object."""
    depth: Floats = ndimage.distance_transform_edt(solid)
    return np.asarray(depth >= 0.7 * depth.max())


def _background(small: Floats) -> Floats:
    """Fits a plane per channel to the most common colour; (H, W, 3)."""
    coarse = (small // 24).astype(np.int64) @ np.array([1, 16, 256])
    values, counts = np.unique(coarse, return_counts=True)
    votes = np.zeros(len(values))
    border = np.concatenate([coarse[:4].ravel(), coarse[-4:].ravel()])
    border = np.concatenate([border, coarse[:, :4].ravel(), coarse[:, -4:].ravel()])
    for index, value in enumerate(values):
        votes[index] = counts[index] / coarse.size + (border == value).mean()
    guess = np.median(small[coarse == values[votes.argmax()]], axis=0)
    grid = np.linspace(-0.5, 0.5, WORK_PX, dtype=np.float32)
    ys, xs = np.meshgrid(grid, grid, indexing="ij")
    terms = np.stack([np.ones_like(ys), ys, xs], axis=2)
    plane = np.broadcast_to(guess, small.shape)
    for limit in (40.0, 20.0, 12.0):
        near = np.linalg.norm(small - plane, axis=2) < limit
        if near.sum() < 100:
            break
        solution = np.linalg.lstsq(terms[near], small[near], rcond=None)[0]
        plane = terms @ solution
    return plane.astype(np.float32)


def _object(small: Floats, plane: Floats, distance: Floats, inside: Flags) -> Flags:
    """Finds the largest part whose colour is nearer to the oddest colour than to the plane."""
    seen = np.where(inside, distance, 0)
    peak = float(np.quantile(seen[inside], 0.985))
    if peak < _MIN_CONTRAST:
        return np.zeros_like(inside)
    odd = np.median(small[seen > 0.75 * peak], axis=0)
    step = odd - plane
    share = ((small - plane) * step).sum(2) / np.maximum((step**2).sum(2), 1)
    labels, count = ndimage.label((share > 0.5) & inside)
    if count == 0:
        return np.zeros_like(inside)
    sizes = ndimage.sum_labels(np.ones_like(labels), labels, range(1, count + 1))
    return np.asarray(labels == 1 + int(np.argmax(sizes)))


def _box(mask: Flags) -> Flags:
    rows, columns = np.where(mask.any(1))[0], np.where(mask.any(0))[0]
    cut = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.asarray(Image.fromarray(cut).resize((_BOX_PX, _BOX_PX), Image.Resampling.NEAREST))


@cache
def _boxes() -> dict[str, Flags]:
    return {name: _box(np.asarray(template(name)) > 127) for name in (*SHAPES, LORA_SHAPE)}


def _best_shape(solid: Flags) -> tuple[str, float]:
    """Compares with every template after both fill their box; poor matches have no name."""
    seen = _box(solid)
    overlaps = {
        name: float((seen & box).sum() / (seen | box).sum()) for name, box in _boxes().items()
    }
    best = max(overlaps, key=lambda name: overlaps[name])
    return (best if overlaps[best] >= _MIN_OVERLAP else "", overlaps[best])


def _whole(plane: Floats, distance: Floats, inside: Flags) -> Flags:
    """Finds outline and inside of the object, but not a hole that shows the background.

    On a dark background an outline stands out little.
    """
    ink_apart = float(np.linalg.norm(plane.mean((0, 1)) - np.array(INK)))
    seen = (distance > min(2 * _MIN_CONTRAST, 0.5 * ink_apart)) & inside
    holes, count = ndimage.label(ndimage.binary_fill_holes(seen) & ~seen)
    apart = ndimage.mean(distance, holes, range(1, count + 1))
    return np.asarray(seen | np.isin(holes, 1 + np.flatnonzero(np.asarray(apart) > _MIN_CONTRAST)))


def _ink(small: Floats, solid: Flags) -> float:
    """Says how much darker the outer band of the object is than its inside, as shares."""
    depth = ndimage.distance_transform_edt(solid)
    if depth.max() < 3:
        return 0.0
    dark = small.max(2) < 90
    band = (depth > 1) & (depth <= 0.2 * depth.max() + 1)
    core = depth > 0.5 * depth.max()
    return float(dark[band].mean() - dark[core].mean())
