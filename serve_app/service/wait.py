"""`JobWait`: waits for the end of jobs, driven here or elsewhere."""

import asyncio
from collections.abc import Awaitable, Callable

from serve_app import errors
from serve_app.jobs.driver import Driver
from serve_app.types import Job

__all__ = ["JobWait"]


class JobWait:
    """Waits through the driver, and reads jobs by `get`."""

    def __init__(self, driver: Driver, get: Callable[[int], Awaitable[Job]]) -> None:
        self._driver, self._get = driver, get

    async def during(self, job_id: int, seconds: float) -> Job:
        """Return a job when it has ended, or as it is after so many seconds."""
        return await self._until(job_id, asyncio.get_running_loop().time() + seconds)

    async def _until(self, job_id: int, deadline: float) -> Job:
        clock = asyncio.get_running_loop().time
        if self._driver.drives(job_id):  # and so it has not ended: nothing to see yet
            await self._driver.wait(job_id, deadline - clock())
        while True:
            left_s = deadline - clock()
            job = await self._seen(job_id, is_last=left_s <= 0)
            if job is not None and (job.state.is_final or left_s <= 0):
                return job
            await self._driver.wait(job_id, left_s)

    async def _seen(self, job_id: int, *, is_last: bool) -> Job | None:
        """Read a job that is waited for; a short outage of the store must not end the wait."""
        try:
            return await self._get(job_id)
        except errors.JobStoreUnavailable:
            if is_last:
                raise
            return None
