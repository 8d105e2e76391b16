"""Reads untrusted picture files: PNG, JPEG and WebP, recognised by content, first frame only.

The order matters: bytes are counted before anything is parsed, what the headers say of size and
price is judged before pixels are unpacked, and only then is the picture turned upright and made
8-bit. Colour profiles are not applied. Pillow raises almost anything for broken files, so all of it
is translated here. Everything blocks; `images.isolation` limits time and memory.
"""

import io

import numpy as np
from PIL import ExifTags, Image

from serve_app import errors
from serve_app.config import ImagesConfig
from serve_app.images import price, reading

__all__ = ["decode", "to_rgb"]

_FORMATS = ("PNG", "JPEG", "WEBP")
# EXIF 2.32, 4.6.4 A, tag 274: how the stored picture has to be turned.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# A JPEG is unpacked at 1/2, 1/4 or 1/8 as long as this many times the wanted size remains.
_DRAFT_MARGIN = 2
_BAND_PX = 256


def decode(field: str, data: bytes, config: ImagesConfig, wanted_px: int | None) -> Image.Image:
    """Read a file.

    Args:
        field: request field, named in errors.
        data: the file.
        config: limits on bytes, pixels and sides.
        wanted_px: longer side that the caller will shrink the picture to; lets a much larger
            JPEG be read at a fraction of its size. None: every pixel is wanted.

    Returns:
        The picture, upright, 8 bits per channel, mode L, LA, RGB or RGBA.

    Raises:
        errors.InvalidImage: the file is no picture of an accepted format, broken, too large or too
            dear.
        MemoryError: there is none left.
    """
    if len(data) > config.max_bytes:
        raise errors.InvalidImage(field, f"The {field} file is over {config.max_bytes} bytes.")
    with reading.watch.get()(field):
        price.check(field, data, config)
        image = _open(field, data, config)
        return _load(field, image, wanted_px)


def to_rgb(image: Image.Image) -> Image.Image:
    """Lay a decoded picture on white; mode RGB."""
    if image.mode in ("LA", "RGBA"):
        white = Image.new("RGB", image.size, "white")
        # In bands: a third copy of a picture of 32 megapixels would take another 128 MB.
        for top in range(0, image.height, _BAND_PX):
            band = image.crop((0, top, image.width, min(top + _BAND_PX, image.height)))
            white.paste(band.convert("RGB"), (0, top), band.getchannel("A"))
        return white
    return image.convert("RGB")


def _open(field: str, data: bytes, config: ImagesConfig) -> Image.Image:
    """Read the headers and judge the size; nothing is unpacked yet."""
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError as exc:
        raise price.too_large(field, config) from exc
    except MemoryError:
        raise
    except Exception as exc:
        message = f"The {field} file is not a readable PNG, JPEG or WebP picture."
        raise errors.InvalidImage(field, message) from exc
    price.check_size(field, *image.size, config)
    return image


def _load(field: str, image: Image.Image, wanted_px: int | None) -> Image.Image:
    """Unpack, turn upright and make 8-bit."""
    try:
        if wanted_px is not None:
            image.draft(None, (wanted_px * _DRAFT_MARGIN,) * 2)
        image.load()
        return _upright(_to_8_bit(image), _orientation(image))
    except MemoryError:
        raise
    except Exception as exc:
        if "out of memory" in str(exc):  # a codec's; Pillow makes it an OSError
            raise MemoryError from exc
        message = f"The {field} picture is broken or incomplete."
        raise errors.InvalidImage(field, message) from exc


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Bring any mode that the formats can have to L, LA, RGB or RGBA."""
    if image.mode.startswith("I;16"):
        # Scaled by hand: convert("L") would clip at 255.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        return image if image.mode in ("LA", "RGBA") else image.convert("RGBA")
    if image.mode in ("1", "L"):
        return image.convert("L")
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    """Read the EXIF orientation; broken EXIF is no reason to refuse a picture."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    turn = _UPRIGHT.get(orientation)
    return image if turn is None else image.transpose(turn)
