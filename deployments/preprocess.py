"""Preprocess: input pictures, wherever they are, become PNGs of the size to paint."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from deployments.stage import stage
from serve_app import errors
from serve_app.config import ImagesConfig, LoggingConfig, StorageConfig
from serve_app.images.download import Downloader
from serve_app.images.prepare import prepare, prepare_ip_picture
from serve_app.storage import open_store
from serve_app.telemetry import logging
from serve_app.types import ImageSource, PreparedImages, Size

__all__ = ["Preprocess"]

Result = TypeVar("Result")


class Preprocess:
    """Downloads in the event loop, decodes in threads."""

    def __init__(
        self, images: ImagesConfig, storage: StorageConfig, data_dir: Path, logs: LoggingConfig
    ) -> None:
        logging.configure(logs)
        self._config = images
        self._downloader = Downloader(images)
        self._files = open_store(storage, data_dir)
        # A 32 megapixel PNG takes about 350 MB while it is read: fewer at a time than requests.
        self._decoders = ThreadPoolExecutor(images.decode_threads, "decode")

    @stage
    async def prepare(
        self,
        size: Size,
        init: ImageSource | None,
        mask: ImageSource | None,
        ip_adapter: ImageSource | None = None,
    ) -> PreparedImages:
        """Fetch, decode and resize; raises `errors.InvalidImage` naming the field."""
        init_file, mask_file, ip_file = [
            await self._read(source) for source in (init, mask, ip_adapter)
        ]
        images = PreparedImages()
        if init_file is not None:
            work = partial(prepare, init_file, mask_file, size, self._config)
            images = await self._in_thread(work)
        if ip_file is not None:
            picture = await self._in_thread(partial(prepare_ip_picture, ip_file, self._config))
            images = replace(images, ip_adapter=picture)
        return images

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._decoders, work)

    async def _read(self, source: ImageSource | None) -> bytes | None:
        if source is None:
            return None
        if source.url is not None:
            return await self._downloader.fetch(source.field, source.url)
        assert source.stored_key is not None, "an image source has a URL or a stored key"
        data = await self._files.get(source.stored_key)
        if data is None:
            raise errors.InvalidImage(source.field, "The picture is not stored any more.")
        return data
