"""People as ControlNets for poses were shown them: limbs and joints of OpenPose, by colours.

Sources: Cao et al. 2019, arXiv 1812.08008 (the joints and their order); `draw_bodypose` of the
annotator of lllyasviel/ControlNet (colours, widths). COCO's keypoints are what models of poses are
trained on: of OpenPose's joints they lack the neck, which lies between the shoulders.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["NUM_KEYPOINTS", "draw", "joints"]

Point = tuple[float, float]  # x, y; pixels
Joints = Sequence[Point | None]

NUM_KEYPOINTS = 17
_LEFT_SHOULDER, _RIGHT_SHOULDER = 5, 6
_NECK = 1
# COCO's keypoint for each joint; the neck has none.
_KEYPOINTS = (0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
_LIMBS = (
    *((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10)),
    *((1, 11), (11, 12), (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17)),
)
_COLOURS = (
    *((255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0)),
    *((0, 255, 0), (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255)),
    *((0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85)),
)
_WIDTH_PX, _SIDE_PX = 4, 512  # half a limb's width, of a picture of this shorter side
_LIMB_SHADE = 0.6


def joints(keypoints: NDArray[np.float32], is_seen: NDArray[np.bool_]) -> Joints:
    """Return OpenPose's 18 joints of COCO's keypoints, (17, 2); None: not seen."""
    found: list[Point | None] = [
        (float(keypoints[one][0]), float(keypoints[one][1]))
        if one is not None and is_seen[one]
        else None
        for one in _KEYPOINTS
    ]
    if is_seen[_LEFT_SHOULDER] and is_seen[_RIGHT_SHOULDER]:
        x, y = keypoints[[_LEFT_SHOULDER, _RIGHT_SHOULDER]].mean(0)
        found[_NECK] = (float(x), float(y))
    return found


def draw(people: Sequence[Joints], size: tuple[int, int]) -> Image.Image:
    """Draw people on black, each over those before; size: width and height."""
    canvas = np.zeros((size[1], size[0], 3), np.uint8)
    width = max(1, round(_WIDTH_PX * min(size) / _SIDE_PX))
    for person in people:
        for (first, second), colour in zip(_LIMBS, _COLOURS, strict=False):
            start, end = person[first], person[second]
            if start is not None and end is not None:
                _draw_limb(canvas, start, end, width, colour)
        for joint, colour in zip(person, _COLOURS, strict=True):
            if joint is not None:
                cv2.circle(canvas, (int(joint[0]), int(joint[1])), width, colour, thickness=-1)
    return Image.fromarray(canvas)


def _draw_limb(
    canvas: NDArray[np.uint8], start: Point, end: Point, width: int, colour: tuple[int, ...]
) -> None:
    """Draw an ellipse from joint to joint."""
    across, down = end[0] - start[0], end[1] - start[1]
    middle = (int((start[0] + end[0]) / 2), int((start[1] + end[1]) / 2))
    axes = (int(math.hypot(across, down) / 2), width)
    angle = int(math.degrees(math.atan2(-down, -across)))
    outline = cv2.ellipse2Poly(middle, axes, angle, 0, 360, 1)
    cv2.fillConvexPoly(canvas, outline, [int(level * _LIMB_SHADE) for level in colour])
