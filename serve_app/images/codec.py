"""Our own encoded pictures: PNG without metadata, written and read by every stage.

PNG files here are ours, so reading them needs none of the care of `decode`. Everything blocks.
"""

import base64
import io

from PIL import Image

from serve_app.types import Picture

__all__ = ["encode", "paste_outside", "to_base64", "to_image"]

# Less than half the time of Pillow's default of 6 for a tenth more bytes (1024 x 1024: 0.09 s).
_COMPRESS_LEVEL = 1


def encode(image: Image.Image) -> Picture:
    """Encode a picture of mode RGB or L.

    Metadata is left behind: profiles, comments and EXIF of an input never reach an output.
    """
    plain = image.copy()
    plain.info.clear()
    buffer = io.BytesIO()
    plain.save(buffer, "PNG", compress_level=_COMPRESS_LEVEL)
    return Picture(data=buffer.getvalue(), height=image.height, width=image.width)


def to_image(picture: Picture) -> Image.Image:
    """Decode one of our own pictures; mode RGB or L."""
    with Image.open(io.BytesIO(picture.data), formats=("PNG",)) as image:
        image.load()
        return image


def to_base64(picture: Picture) -> bytes:
    """Make the text form of an output (`base64: "yes"`): the PNG file, without a prefix."""
    return base64.b64encode(picture.data)


def paste_outside(init: Image.Image, mask: Image.Image, painted: Image.Image) -> Image.Image:
    """Put the kept part of the init picture back: where the mask is 0, pixels equal it exactly.

    Args:
        init: RGB.
        mask: L, only 0 and 255, of the same size.
        painted: RGB, of the same size.
    """
    return Image.composite(painted, init, mask)
