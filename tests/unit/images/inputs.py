"""A photo, and the size that is asked for."""

from PIL import Image

from serve_app.config import ImagesConfig
from serve_app.types import Fit, Masking, Size
from tests.picture_files import file

CONFIG = ImagesConfig()


def size(height: int, width: int, fit: Fit | None = None, **masking) -> Size:
    return Size(height=height, width=width, fit=fit, masking=Masking(**masking))


def photo(width: int = 96, height: int = 64) -> bytes:
    return file(Image.effect_noise((width, height), 60).convert("RGB"))
