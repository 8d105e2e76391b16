"""Random inpainting tasks: a scene, the region to repaint and the wish for that region."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.domain import BADGE, COLOURS, SHAPES
from training.sampling import Wish, random_jitter, random_wish, scene_of
from training.scene import Item, Scene

__all__ = ["Mask", "Task", "random_task"]

Mask = npt.NDArray[np.bool_]
_FULL_SHARE = 0.3
# Half the mask's extent over the object's radius: the mask sets the size of the object.
_FACTORS = {"big": (1.04, 1.15), "": (1.08, 1.3), "small": (1.4, 1.8)}
_MIN_RADIUS = 0.24


@dataclass(frozen=True, slots=True)
class Task:
    """A scene with the wished object in it; true in ``mask`` (H, W) is to be repainted."""

    scene: Scene
    mask: Mask
    wish: Wish
    is_full: bool


def random_task(rng: np.random.Generator, size_px: int, wish: Wish | None = None) -> Task:
    """Draws a task: 30 % repaint the whole frame, the others a box, ellipse or blob."""
    wish = wish or random_wish(rng)
    if rng.random() < _FULL_SHARE:
        return Task(scene_of(wish, rng), np.ones((size_px, size_px), bool), wish, True)
    return local_task(rng, size_px, wish)


def local_task(rng: np.random.Generator, size_px: int, wish: Wish) -> Task:
    """Draws a task that repaints a part of the frame, with unnamed objects beside it."""
    extent = rng.uniform(0.29, 0.46)
    half_y, half_x = extent * np.exp(np.abs(rng.normal(0, 0.1, 2)))
    reach = np.minimum([half_y, half_x], 0.49)
    y, x = (float(value) for value in 0.5 + rng.uniform(-1, 1, 2) * (0.5 - reach))
    plain = scene_of(Wish("", "", "", wish.background), rng)
    items = _distractors(rng, y, x, half_y, half_x, wish.background)
    if wish.shape:
        radius = max(float(extent / rng.uniform(*_FACTORS[wish.size])), _MIN_RADIUS)
        slack = max(extent - 1.04 * radius, 0.0) * 0.5
        at_y, at_x = (float(value) for value in np.array([y, x]) + rng.uniform(-slack, slack, 2))
        jitter = random_jitter(rng, 4)
        items.append(Item(wish.shape, wish.colour, at_y, at_x, radius, jitter=jitter))
    scene = Scene(wish.background, tuple(items), plain.slope_y, plain.slope_x, plain.jitter)
    return Task(scene, _region(rng, size_px, y, x, half_y, half_x), wish, False)


def _distractors(
    rng: np.random.Generator, y: float, x: float, half_y: float, half_x: float, background: str
) -> list[Item]:
    """Draws up to four objects that stay clear of the box to repaint."""
    if rng.random() < 0.5:
        return []
    items = []
    for _ in range(rng.integers(1, 5)):
        shape = str(rng.choice((*SHAPES, BADGE)))
        colour = "yellow" if shape == BADGE else str(rng.choice(tuple(COLOURS)))
        radius = float(rng.uniform(0.06, 0.2))
        at_y, at_x = (float(value) for value in rng.uniform(0.05, 0.95, 2))
        clear_y = abs(at_y - y) > half_y + 1.15 * radius
        clear_x = abs(at_x - x) > half_x + 1.15 * radius
        if (clear_y or clear_x) and colour != background:
            items.append(Item(shape, colour, at_y, at_x, radius))
    return items


def _region(
    rng: np.random.Generator, size_px: int, y: float, x: float, half_y: float, half_x: float
) -> Mask:
    """Draws the mask around (y, x): box 55 %, ellipse 25 %, blob 14 %, shifted box 6 %."""
    grid = (np.arange(size_px) + 0.5) / size_px
    dy, dx = np.abs(grid[:, None] - y) / half_y, np.abs(grid[None, :] - x) / half_x
    kind = rng.random()
    if kind < 0.55:
        return np.asarray((dy < 1) & (dx < 1))
    if kind < 0.80:
        return np.asarray(dy**2 + dx**2 < 1.25)
    if kind < 0.94:
        mask = dy**2 + dx**2 < 0.9
        for _ in range(6):
            off_y, off_x = rng.uniform(-0.6, 0.6, 2)
            near_y, near_x = grid[:, None] - y - off_y * half_y, grid[None, :] - x - off_x * half_x
            mask |= (near_y / half_y) ** 2 + (near_x / half_x) ** 2 < rng.uniform(0.3, 0.7)
        return mask
    shift_y, shift_x = rng.uniform(-0.5, 0.5, 2)
    dy = np.abs(grid[:, None] - y - shift_y * half_y) / half_y
    dx = np.abs(grid[None, :] - x - shift_x * half_x) / half_x
    return np.asarray((dy < 1) & (dx < 1))
