"""`Watch`: wakes those who wait for jobs, wherever these are driven.

A job that ends in this process is told of at once. For the others one question to the store serves
all who wait.
"""

import asyncio
import contextlib
from collections.abc import Iterable

from serve_app.jobs.protocol import JobStore

__all__ = ["Watch"]

_LOOK_S = 0.25  # between questions


class Watch:
    """Who waits for which job, on one event loop."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._waiting: dict[int, set[asyncio.Future[None]]] = {}
        self._is_wanted = asyncio.Event()

    async def wait(self, job_id: int, timeout_s: float) -> None:
        """Return when the job may have ended, or after the time."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(job_id, set()).add(waiter)
        self._is_wanted.set()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await waiter
        finally:
            waiters = self._waiting[job_id]
            waiters.discard(waiter)
            if not waiters:
                del self._waiting[job_id]

    def wake(self, job_ids: Iterable[int]) -> None:
        """Wake those who wait for these jobs, so that they look again."""
        for job_id in job_ids:
            for waiter in self._waiting.get(job_id, ()):
                if not waiter.done():
                    waiter.set_result(None)

    async def look(self) -> None:
        """Wait for the next look, and wake whose jobs have ended; sleep while nobody waits.

        Raises:
            errors.JobStoreUnavailable: nobody was woken.
        """
        if not self._waiting:
            self._is_wanted.clear()
            await self._is_wanted.wait()
        await asyncio.sleep(_LOOK_S)
        if self._waiting:
            self.wake(await self._store.ended(list(self._waiting)))
