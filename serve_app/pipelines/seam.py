"""What joins the repainted part to the picture around it: tone and edge.

An autoencoder never gives a picture back exactly, so what a model paints is a few grey levels off
and shows as a tinted box on an even background. How far it is off can be read beside the mask,
where picture and result should be the same, and is carried on into the mask.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Bytes", "Floats", "edge_weight", "spread", "tone_offset"]

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
_CELL_PX = 8  # as a latent cell of most autoencoders: finer differences are detail, not tone
_BUMP_PX = 2  # outlines of round parts and of drawn ones have such; blended they look even
_TRUSTED_LEVELS = 24.0  # a larger difference is another thing, not another tone


def edge_weight(mask: Image.Image, seam_px: int) -> Floats:
    """Weigh the result, (H, W): 0 on black, rising to 1 over `seam_px` pixels into the white.

    Where the white is too thin for that it rises faster, the thinner the steeper, so that nothing
    of a scratch stays: its middle always has 1, and lines of two root `seam_px` pixels are all 1.
    mask: 0 and 255 only.
    """
    full = seam_px + 1
    depth = _depth(mask, full)
    thickness = _thickness(depth, full).astype(np.float32)
    rise = np.maximum(thickness * thickness / np.float32(full), np.float32(1))
    weight: Floats = np.minimum(depth / rise, np.float32(1))
    return weight


def _depth(mask: Image.Image, limit: int) -> Bytes:
    """Count how deep pixels lie in the white, (H, W): 0 on black, 1 beside it, `limit` at most."""
    white = np.asarray(mask) // np.uint8(255)
    depth = white.copy()
    for _ in range(limit - 1):
        white = _spread(white, np.minimum)
        depth += white
    return depth


def _thickness(depth: Bytes, limit: int) -> Bytes:
    """Measure the thickness of the white around its pixels, (H, W), as its middle's depth.

    A pixel takes it from the deepest pixel whose square of white holds it: the size at which an
    opening removes it (granulometry; Serra 1982, "Image Analysis and Mathematical Morphology").
    A bump of `_BUMP_PX` on the edge of a thick part counts as the part.
    """
    thickness = np.zeros_like(depth)
    for level in range(limit, 1, -1):
        # Squares are entered by size, so that each grows to where its white ends and no further.
        thickness = _spread(np.maximum(thickness, depth * (depth == level)), np.maximum)
    thickness = np.maximum(thickness, np.minimum(depth, 1))
    for _ in range(_BUMP_PX):
        thickness = _spread(thickness, np.maximum) * (depth > 0)
    return thickness


def _spread(values: Bytes, extreme: np.ufunc) -> Bytes:
    """Return for each pixel the extreme of its 3 x 3 neighbours.

    Beyond the frame the border pixels are repeated: the frame's own edge is no seam. In numpy, 20
    times as fast as the filters of Pillow and scipy.
    """
    for _ in range(2):  # down the columns, then, turned, along the rows
        padded = np.pad(values, ((1, 1), (0, 0)), "edge")
        values = extreme(extreme(padded[:-2], padded[1:-1]), padded[2:]).T
    return values


def tone_offset(before: Floats, result: Floats, mask: Image.Image) -> Floats:
    """Estimate what the result lacks to have the picture's tone, (H, W, 3), in grey levels.

    Differences of the kept pixels are spread into the mask. Zero where nothing is kept.
    """
    apart = before - result
    return spread(apart, (np.asarray(mask) == 0) & (np.abs(apart).max(2) < _TRUSTED_LEVELS))


def spread(values: Floats, kept: NDArray[np.bool_]) -> Floats:
    """Spread the kept values, (H, W, 3), into what is not kept; zero where nothing is kept.

    They are averaged by cell and spread from coarse to fine (pull-push, Gortler et al. 1996, "The
    Lumigraph", section 3.4.2).
    """
    share = _reduced(kept.astype(np.float32), _CELL_PX)
    channels = []
    for channel in np.moveaxis(np.where(kept[..., None], values, np.float32(0)), 2, 0):
        mean = _ratio(_reduced(channel, _CELL_PX), share)
        channels.append(_resized(_filled(mean, share), kept.shape))
    return np.stack(channels, axis=2)


def _filled(mean: Floats, share: Floats) -> Floats:
    """Fill cells (h, w) with the mean of coarser ones as far as they have no kept pixels."""
    if max(mean.shape) == 1 or not share.any():
        return mean
    weight = np.minimum(share * np.float32(2), np.float32(1))
    total = _reduced(share, 2)
    coarse = _filled(_ratio(_reduced(mean * share, 2), total), total)
    mixed: Floats = weight * mean + (1 - weight) * _resized(coarse, mean.shape)
    return mixed


def _reduced(values: Floats, factor: int) -> Floats:
    """Average blocks of factor x factor; those at the far edges may be smaller."""
    return np.asarray(Image.fromarray(values).reduce(factor), np.float32)


def _ratio(values: Floats, share: Floats) -> Floats:
    return np.divide(values, share, out=np.zeros_like(values), where=share > 0)


def _resized(values: Floats, shape: tuple[int, ...]) -> Floats:
    size = (shape[1], shape[0])
    return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR), np.float32)
