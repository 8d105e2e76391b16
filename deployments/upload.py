"""Upload: results go to the object store under the names reserved when the job was accepted."""

import asyncio
from dataclasses import replace
from pathlib import Path

from deployments.stage import stage
from serve_app.config import LoggingConfig, StorageConfig
from serve_app.images.codec import converted
from serve_app.storage import Uploader, open_store
from serve_app.telemetry import logging
from serve_app.types import (
    GenerationSpec,
    JobResult,
    OutputPlan,
    PictureFormat,
    Pictures,
    PreparedImages,
)

__all__ = ["Upload"]


class Upload:
    """Hosts the uploader."""

    def __init__(self, storage: StorageConfig, data_dir: Path, logs: LoggingConfig) -> None:
        logging.configure(logs)
        self._uploader = Uploader(open_store(storage, data_dir), storage)

    @stage
    async def store(
        self,
        plan: OutputPlan,
        pictures: Pictures,
        spec: GenerationSpec | None = None,
        images: PreparedImages | None = None,
    ) -> JobResult:
        """Bring pictures to the asked format, write them, return once each can be read back.

        spec, images: of a job with hints that it keeps; none: there are none.
        """
        hints = () if spec is None or images is None else images.drawn(spec)
        if plan.format is not PictureFormat.PNG:
            work = [
                asyncio.to_thread(converted, one, plan.format, plan.quality)
                for one in pictures.pictures
            ]
            made = await asyncio.gather(*work)
            pictures = replace(pictures, pictures=tuple(made))
        return await self._uploader.store(plan, pictures, hints)
