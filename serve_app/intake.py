"""`Intake`: pictures that clients hand in, kept for jobs or put under a link."""

import asyncio

from serve_app import errors
from serve_app.config import ImagesConfig
from serve_app.images import source
from serve_app.images.reencode import reencode
from serve_app.images.source import InputPicture
from serve_app.storage import names
from serve_app.storage.protocol import ObjectStore
from serve_app.types import ImageSource

__all__ = ["Intake"]

_MAX_PUBLISHED_BYTES = 5 * 1024**2  # API page "Crop base64 image"


class Intake:
    """Writes inline pictures to the object store."""

    def __init__(self, files: ObjectStore, config: ImagesConfig) -> None:
        self._files = files
        self._config = config
        # A 32 megapixel PNG takes about 350 MB while it is read.
        self._decoders = asyncio.Semaphore(config.decode_threads)

    async def keep(self, field: str, picture: InputPicture) -> ImageSource:
        """Keep an input picture for every run of a job: a URL as it is, inline data as a file.

        Raises:
            errors.InvalidImage: neither a URL nor base64, or too large.
        """
        parsed = await source.read(field, picture, self._config.max_bytes)
        if isinstance(parsed, str):
            return ImageSource(field=field, url=parsed)
        key = names.reserve_input()
        await self._files.put(key, parsed, "application/octet-stream")
        return ImageSource(field=field, stored_key=key)

    async def publish(self, field: str, picture: InputPicture, *, crop: bool) -> str:
        """Encode an inline picture anew, as a temporary result; returns its key.

        crop: keep only the square in the middle.

        Raises:
            errors.InvalidImage: no inline picture, broken, or too large.
        """
        max_bytes = min(self._config.max_bytes, _MAX_PUBLISHED_BYTES)
        data = await source.read(field, picture, max_bytes)
        if isinstance(data, str):
            raise errors.InvalidImage(field, f"The {field} field must be base64 or a data URI.")
        async with self._decoders:
            encoded = await asyncio.to_thread(reencode, field, data, self._config, crop=crop)
        (key,) = names.reserve(1, temp=True)
        await self._files.put(key, encoded.data, names.media_type(key))
        return key
