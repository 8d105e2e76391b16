"""Makes one of our own pictures of a client's file, to be handed out under a link of ours."""

from PIL import Image

from serve_app.config import ImagesConfig
from serve_app.images.codec import encode
from serve_app.images.decode import decode, to_rgb
from serve_app.types import Picture

__all__ = ["reencode"]


def reencode(field: str, data: bytes, config: ImagesConfig, *, crop: bool = False) -> Picture:
    """Decode a file as far as any input and encode it anew: RGB, upright, without metadata.

    Blocks: run it in a thread.

    Args:
        field: request field, named in errors.
        data: the file.
        config: limits on the file.
        crop: keep only the square in the middle.

    Raises:
        errors.InvalidImage: the file is no picture of an accepted format, broken or too large.
    """
    image = to_rgb(decode(field, data, config, config.max_side_px))
    return encode(_middle(image) if crop else image)


def _middle(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))
