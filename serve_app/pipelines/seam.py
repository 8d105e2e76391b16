"""What joins the repainted part to the picture around it: tone and edge.

An autoencoder never gives a picture back exactly, so what a model paints is a few grey levels off
and shows as a tinted box on an even background. How far it is off can be read beside the mask,
where picture and result should be the same, and is carried on into the mask.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

__all__ = ["edge_weight", "tone_offset"]

Floats = NDArray[np.float32]
_CELL_PX = 8  # as a latent cell of most autoencoders: finer differences are detail, not tone
_TRUSTED_LEVELS = 24.0  # a larger difference is another thing, not another tone


def edge_weight(mask: Image.Image, seam_px: int) -> Floats:
    """Weigh the result, (H, W): 0 on black, rising to 1 over `seam_px` pixels into the white."""
    weight = np.asarray(mask, np.float32) / np.float32(255)
    eroded = mask
    for _ in range(seam_px):
        # The frame's own edge is no seam: MinFilter repeats the border pixels.
        eroded = eroded.filter(ImageFilter.MinFilter(3))
        weight += np.asarray(eroded, np.float32) / np.float32(255)
    return weight / np.float32(seam_px + 1)


def tone_offset(before: Floats, result: Floats, mask: Image.Image) -> Floats:
    """Estimate what the result lacks to have the picture's tone, (H, W, 3), in grey levels.

    Differences of the kept pixels, averaged by cell, are spread into the mask from coarse to fine
    (pull-push, Gortler et al. 1996, "The Lumigraph", section 3.4.2). Zero where nothing is kept.
    """
    apart = before - result
    kept = (np.asarray(mask) == 0) & (np.abs(apart).max(2) < _TRUSTED_LEVELS)
    share = _reduced(kept.astype(np.float32), _CELL_PX)
    channels = []
    for channel in np.moveaxis(np.where(kept[..., None], apart, np.float32(0)), 2, 0):
        mean = _ratio(_reduced(channel, _CELL_PX), share)
        channels.append(_resized(_filled(mean, share), kept.shape))
    return np.stack(channels, axis=2)


def _filled(mean: Floats, share: Floats) -> Floats:
    """Give cells (h, w) the mean of coarser ones as far as they have no kept pixels."""
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
