"""Makes the pictures that a Generator wants from the files of a client."""

from PIL import Image

from serve_app import errors
from serve_app.config import ImagesConfig
from serve_app.images.codec import encode
from serve_app.images.decode import decode, to_rgb
from serve_app.images.fit import fitted
from serve_app.images.mask import resized, to_binary, to_shades
from serve_app.types import Picture, PreparedImages, Size

__all__ = ["prepare", "prepare_ip_picture"]

# Pillow shrinks large pictures in two steps, the first one cheap; 3 leaves no visible trace.
_REDUCING_GAP = 3.0
# Image encoders enlarge the shorter side to theirs and look at the middle square. Of a strip, which
# would become a thousand times as large as the square, only so many squares are kept.
_MAX_ASPECT = 4


def prepare(init: bytes, mask: bytes | None, size: Size, config: ImagesConfig) -> PreparedImages:
    """Decode both files and bring them to the asked size. Blocks: run it in a thread.

    Both are stretched, as the hosted API does when the aspect differs, so they stay aligned.

    Args:
        init: file of the init picture.
        mask: file of the mask; `mask.to_shades` tells which part of it is repainted.
        size: asked for, or to be found by the shape of the init picture.
        config: limits on the files.

    Raises:
        errors.InvalidImage: a file cannot be read, is too large, or the mask repaints nothing.
    """
    wanted_px = size.fit.max_px if size.fit else max(size.height, size.width)
    picture = to_rgb(decode("init_image", init, config, wanted_px))
    sides = fitted(size.fit, picture.size) if size.fit else (size.width, size.height)
    if picture.size != sides:
        picture = picture.resize(sides, Image.Resampling.LANCZOS, reducing_gap=_REDUCING_GAP)
    if mask is None:
        return PreparedImages(init=encode(picture))
    shades = to_shades(decode("mask_image", mask, config, wanted_px=None))
    binary = to_binary(resized(shades, sides))
    if binary.getbbox() is None:
        message = "The mask_image repaints nothing: the part to repaint must be white."
        raise errors.InvalidImage("mask_image", message)
    return PreparedImages(init=encode(picture), mask=encode(binary))


def prepare_ip_picture(data: bytes, config: ImagesConfig) -> Picture:
    """Decode the picture for an IP adapter; a large one is made smaller, a strip shorter. Blocks.

    Raises:
        errors.InvalidImage: the file cannot be read or is too large.
    """
    side = config.ip_adapter_side_px
    picture = to_rgb(decode("ip_adapter_image", data, config, side))
    picture = _middle(picture)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=_REDUCING_GAP)
    return encode(picture)


def _middle(image: Image.Image) -> Image.Image:
    """Cut off the ends of a strip."""
    longest = _MAX_ASPECT * min(image.size)
    width, height = (min(side, longest) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
