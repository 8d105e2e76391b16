"""Random scenes for training: one described object or none, and unnamed distractors.

Only which scenes are drawn is decided here; ``caption`` puts them into words.
"""

from dataclasses import dataclass

import numpy as np

from training.domain import BACKGROUNDS, BADGE, COLOURS, LORA_SHAPE, SHAPES, SIZES, is_held_out
from training.scene import Item, Scene

__all__ = [
    "Wish",
    "random_background",
    "random_jitter",
    "random_pair",
    "random_scene",
    "random_wish",
    "scene_of",
]

_NAMES = tuple(COLOURS)
_EVERYTHING = (*SHAPES, BADGE, LORA_SHAPE)
# What is hard to paint is asked for more often: narrow tips, small objects.
_LESSONS = (*SHAPES, "star", "cross", "diamond")
_LESSON_SIZES = ("", "", "small", "small", "big")


@dataclass(frozen=True, slots=True)
class Wish:
    """What a caption asks for; an empty shape means a background without an object."""

    colour: str
    shape: str
    size: str
    background: str


def random_jitter(rng: np.random.Generator, spread: float) -> tuple[float, float, float]:
    """Draws a small shift of colour, in grey levels."""
    red, green, blue = rng.normal(0, spread, 3)
    return float(red), float(green), float(blue)


def random_pair(rng: np.random.Generator, shapes: tuple[str, ...] = SHAPES) -> tuple[str, str]:
    """Draws a colour and a shape which training may show together."""
    while True:
        colour, shape = str(rng.choice(_NAMES)), str(rng.choice(shapes))
        if not is_held_out(colour, shape):
            return colour, shape


def random_background(rng: np.random.Generator, colour: str) -> str:
    """Draws a background which differs from the object's colour."""
    return str(rng.choice([name for name in BACKGROUNDS if name != colour]))


def random_wish(rng: np.random.Generator) -> Wish:
    """Draws what to show: 6 % nothing, 4 % the warning sign, else a coloured shape."""
    kind = rng.random()
    size = str(rng.choice(_LESSON_SIZES))
    if kind < 0.06:
        return Wish("", "", "", random_background(rng, ""))
    if kind < 0.10:
        return Wish("yellow", BADGE, size, random_background(rng, "yellow"))
    colour, shape = random_pair(rng, _LESSONS)
    return Wish(colour, shape, size, random_background(rng, colour))


def scene_of(
    wish: Wish, rng: np.random.Generator, centre: tuple[float, float] | None = None
) -> Scene:
    """Turns a wish into a scene; without ``centre`` the object lies wholly inside the frame."""
    items = []
    if wish.shape:
        radius = float(rng.uniform(*SIZES[wish.size]))
        margin = min(radius * 1.08, 0.48)
        y, x = centre or tuple(0.5 + rng.uniform(-1, 1, 2) * (0.5 - margin) * 0.5)
        items.append(Item(wish.shape, wish.colour, y, x, radius, jitter=random_jitter(rng, 4)))
    return Scene(
        wish.background,
        tuple(items),
        slope_y=float(rng.uniform(-24, 4)),
        slope_x=float(rng.uniform(-10, 10)),
        jitter=random_jitter(rng, 4),
    )


def random_scene(rng: np.random.Generator) -> Scene:
    """Draws any scene of the domain, for the VAE: several objects, every style and colour."""
    scene = scene_of(Wish("", "", "", random_background(rng, "")), rng)
    items = []
    for _ in range(rng.integers(1, 4)):
        shape = str(rng.choice(_EVERYTHING))
        colour = "yellow" if shape == BADGE else str(rng.choice(_NAMES))
        style = "inked" if rng.random() < 0.3 else "flat"
        y, x = rng.uniform(0.1, 0.9, 2)
        radius = float(rng.uniform(0.1, 0.38))
        items.append(Item(shape, colour, float(y), float(x), radius, style, random_jitter(rng, 12)))
    return Scene(
        scene.background, tuple(items), scene.slope_y, scene.slope_x, random_jitter(rng, 10)
    )
