"""`Sweeper`: removes what has expired: finished job rows, `temp` results, spent input pictures."""

import asyncio

import structlog

from serve_app import errors
from serve_app.config import JobsConfig, StorageConfig
from serve_app.jobs.protocol import JobStore
from serve_app.storage.names import INPUTS, TEMP
from serve_app.storage.protocol import ObjectStore

__all__ = ["Sweeper"]

_log = structlog.get_logger()


class Sweeper:
    """One round every `jobs.sweep_s`; a part that is down is tried again in the next round."""

    def __init__(
        self, jobs: JobStore, files: ObjectStore, config: JobsConfig, storage: StorageConfig
    ) -> None:
        self._jobs = jobs
        self._files = files
        self._config = config
        self._storage = storage

    async def run(self) -> None:
        """Sweep for ever."""
        while True:
            await self.sweep()
            await asyncio.sleep(self._config.sweep_s)

    async def sweep(self) -> None:
        """Do one round."""
        try:
            await self._files.expire(TEMP, self._storage.temp_ttl_s)
            await self._files.expire(INPUTS, self._storage.input_ttl_s)
            if self._config.retention_s:
                await self._jobs.expire(self._config.retention_s)
        except (errors.StorageUnavailable, errors.JobStoreUnavailable) as exc:
            _log.warning("sweep_failed", reason=str(exc))
