"""Preprocess: pictures of clients become PNGs of ours, of the size to paint."""

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path

from deployments.metrics import Instruments
from deployments.stage import stage
from serve_app import errors
from serve_app.config import HintsConfig, ImagesConfig, LoggingConfig, StorageConfig
from serve_app.fairness import PLAIN, Places, Stake
from serve_app.images.download import Downloader
from serve_app.images.isolation import Isolation
from serve_app.images.prepare import prepare, prepare_controls, prepare_ip_picture
from serve_app.images.reencode import reencode
from serve_app.pipelines.hint_models import HintModels
from serve_app.storage import open_store
from serve_app.telemetry import logging, metrics
from serve_app.turnstile import Turnstile
from serve_app.types import ControlType, ImageSource, Pictures, PreparedImages, Size

__all__ = ["Preprocess"]


class Preprocess:
    """Downloads in the event loop, has files read in worker processes."""

    def __init__(
        self,
        images: ImagesConfig,
        storage: StorageConfig,
        data_dir: Path,
        logs: LoggingConfig,
        hints: HintsConfig = HintsConfig(),  # noqa: B008  # frozen
    ) -> None:
        logging.configure(logs)
        self._config = images
        self._downloader = Downloader(images)
        self._files = open_store(storage, data_dir)
        self.isolation = Isolation(images)
        self._line = Turnstile(Places(images.max_prepared, images.max_prepared))
        self._hints = HintModels(hints)
        self._instruments = Instruments(metrics.PICTURES)

    async def check_health(self) -> None:
        """Raise when the workers cannot be started; Serve asks before a replica's first call.

        Called every few seconds, which is also how often the metrics are worth reporting.
        """
        self._instruments.report(self.isolation, {})
        await self.isolation.start()

    @stage
    async def prepare(  # noqa: PLR0913, PLR0917  # one per use of a picture
        self,
        size: Size,
        init: ImageSource | None,
        mask: ImageSource | None,
        ip_adapter: ImageSource | None = None,
        control: ImageSource | None = None,
        hints: tuple[ControlType | None, ...] = (),
        stake: Stake = PLAIN,
    ) -> PreparedImages:
        """Fetch, decode and resize; raises `errors.InvalidImage` naming the field.

        control: for ControlNets; none: they see the init picture. hints: made of it, one per net.
        """
        async with self._line.visit(stake):
            init_file, mask_file, ip_file, control_file = [
                await self._read(source) for source in (init, mask, ip_adapter, control)
            ]
            images = PreparedImages()
            if init_file is not None:
                is_alpha_mask = mask is not None and mask.is_alpha_mask
                work = partial(
                    prepare, init_file, mask_file, size, self._config, is_alpha_mask=is_alpha_mask
                )
                images = await self.isolation.run(work, stake)
            if ip_file is not None:
                shrink = partial(prepare_ip_picture, ip_file, self._config)
                picture = await self.isolation.run(shrink, stake)
                images = replace(images, ip_adapter=picture)
            shown, file = (init, init_file) if control_file is None else (control, control_file)
            if control is None and size.outpaint is not None and images.init is not None:
                file = images.init.data  # the larger picture
            if hints and shown is not None and file is not None:
                if images.init is not None:
                    size = Size(height=images.init.height, width=images.init.width)
                work = partial(prepare_controls, shown.field, file, hints, size, self._config)
                controls = (await self.isolation.run(work, stake)).controls
                drawn = await asyncio.to_thread(self._hints.draw, hints, controls)
                images = replace(images, controls=drawn)
            return images

    @stage
    async def reencode(self, field: str, data: bytes, crop: bool) -> Pictures:
        """Make one of our own pictures of a client's file; raises `errors.InvalidImage`."""
        work = partial(reencode, field, data, self._config, crop=crop)
        picture = await self.isolation.run(work)
        return Pictures((picture,), nsfw=(False,), generation_time_s=0.0, ran={})

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
