"""Upload: results go to the object store under the names reserved when the job was accepted."""

from pathlib import Path

from deployments.stage import stage
from serve_app.config import LoggingConfig, StorageConfig
from serve_app.storage import Uploader, open_store
from serve_app.telemetry import logging
from serve_app.types import JobResult, OutputPlan, Pictures

__all__ = ["Upload"]


class Upload:
    """Hosts the uploader."""

    def __init__(self, storage: StorageConfig, data_dir: Path, logs: LoggingConfig) -> None:
        logging.configure(logs)
        self._uploader = Uploader(open_store(storage, data_dir), storage)

    @stage
    async def store(self, plan: OutputPlan, pictures: Pictures) -> JobResult:
        """Write every picture and return once each can be read back."""
        return await self._uploader.store(plan, pictures)
