"""`Sweeper`: removes what has expired: finished job rows, `temp` results, spent input pictures."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from serve_app import errors
from serve_app.config import JobsConfig, StorageConfig
from serve_app.jobs.protocol import JobStore
from serve_app.storage.names import INPUTS, RESULTS, TEMP
from serve_app.storage.protocol import ObjectStore
from serve_app.webhooks.protocol import Outbox

__all__ = ["Sweeper"]

_log = structlog.get_logger()


class Sweeper:
    """One round every `jobs.sweep_s`; a part that is down is tried again in the next round."""

    def __init__(
        self,
        jobs: JobStore,
        outbox: Outbox,
        files: ObjectStore,
        config: JobsConfig,
        storage: StorageConfig,
    ) -> None:
        self._jobs = jobs
        self._outbox = outbox
        self._files = files
        self._config = config
        self._storage = storage

    async def run(self) -> None:
        """Sweep for ever."""
        while True:
            await self.sweep()
            await asyncio.sleep(self._config.sweep_s)

    async def sweep(self) -> None:
        """Do one round; each removal stands by itself."""
        lives_s = {TEMP: self._storage.temp_ttl_s, INPUTS: self._storage.input_ttl_s}
        if self._storage.result_ttl_s:
            lives_s[RESULTS] = self._storage.result_ttl_s
        removals: list[Callable[[], Awaitable[object]]] = [self._files.ensure_lifecycle]
        removals += [partial(self._files.expire, folder, life) for folder, life in lives_s.items()]
        if self._config.retention_s:
            removals.append(partial(self._jobs.expire, self._config.retention_s))
            removals.append(partial(self._outbox.expire, self._config.retention_s))
        for remove in removals:
            try:
                await remove()
            except (errors.StorageUnavailable, errors.JobStoreUnavailable) as exc:
                _log.warning("sweep_failed", reason=str(exc))
