"""Upload: results go to the object store under the names reserved when the job was accepted."""

from pathlib import Path

from deployments.stage import stage
from serve_app.config import LoggingConfig, StorageConfig
from serve_app.storage import Uploader, open_store
from serve_app.telemetry import logging
from serve_app.types import GenerationSpec, JobResult, OutputPlan, Pictures, PreparedImages

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
        """Write every picture and return once each can be read back.

        spec, images: of a job with hints that it keeps; none: there are none.
        """
        hints = () if spec is None or images is None else images.drawn(spec)
        return await self._uploader.store(plan, pictures, hints)
