"""The words of the demo domain: colours, shapes, sizes, and the pairs held out of training.

Plain data and no drawing. Everything else in the package takes its vocabulary from here.
"""

from types import MappingProxyType

__all__ = [
    "BACKGROUNDS",
    "BADGE",
    "COLOURS",
    "HELD_OUT",
    "INK",
    "LORA_SHAPE",
    "SHAPES",
    "SIZES",
    "is_held_out",
]

RGB = tuple[int, int, int]

COLOURS = MappingProxyType(
    {
        "red": (220, 50, 52),
        "orange": (246, 138, 30),
        "yellow": (250, 212, 54),
        "green": (52, 166, 84),
        "blue": (46, 104, 216),
        "purple": (130, 68, 190),
        "pink": (246, 128, 178),
        "brown": (132, 84, 52),
        "white": (248, 248, 244),
        "black": (34, 36, 44),
    }
)


def _soften(rgb: RGB) -> RGB:
    """Mixes a colour with white, so that objects stand out from a background of any hue."""
    red, green, blue = (round(0.68 * value + 0.32 * 250) for value in rgb)
    return red, green, blue


BACKGROUNDS = MappingProxyType(
    {name: _soften(rgb) for name, rgb in COLOURS.items()} | {"black": (62, 64, 76)}
)

INK = (22, 24, 34)
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "diamond")
BADGE = "warning"
LORA_SHAPE = "heart"

# Radius as a fraction of the shorter side of the frame.
SIZES = MappingProxyType({"small": (0.24, 0.28), "": (0.27, 0.36), "big": (0.33, 0.40)})

HELD_OUT = frozenset(
    {
        ("red", "star"),
        ("orange", "square"),
        ("yellow", "ring"),
        ("green", "triangle"),
        ("blue", "cross"),
        ("purple", "circle"),
        ("pink", "diamond"),
        ("brown", "star"),
        ("white", "triangle"),
        ("black", "ring"),
    }
)


def is_held_out(colour: str, shape: str) -> bool:
    """Says whether training never shows this colour with this shape."""
    return (colour, shape) in HELD_OUT
