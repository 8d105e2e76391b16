"""`Queue`: which place a job has among those that have not begun, of its model and of all.

One question to the store serves all who ask within `_FRESH_S`. Who has begun the store learns every
few seconds only, from the leases; whoever sees jobs at work says so here (`saw`).
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field

from serve_app.jobs.protocol import JobStore
from serve_app.models.revision import asked_id
from serve_app.types import Job, JobState

__all__ = ["Queue"]

_FRESH_S = 0.25


@dataclass(slots=True)
class _Line:
    """Jobs of one model that wait as far as the store knows, in order; some of them have begun."""

    job_ids: list[int] = field(default_factory=list)
    begun: set[int] = field(default_factory=set)
    looked_at: float = -_FRESH_S
    look: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True)
class _Turns:
    """Who waits for a driver, over all models: places from 0 by job."""

    num_begun: int = 0
    places: dict[int, int] = field(default_factory=dict)
    looked_at: float = -_FRESH_S
    look: asyncio.Lock = field(default_factory=asyncio.Lock)


class Queue:
    """One per ingress."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._lines: dict[str, _Line] = defaultdict(_Line)
        self._turns = _Turns()

    def saw(self, model_id: str, job_ids: Collection[int]) -> None:
        """Note that these jobs are at work."""
        if job_ids:
            self._lines[asked_id(model_id)].begun.update(job_ids)

    async def place(self, job: Job) -> int:
        """Return 1 for the job that is to begin next, and so on; 0: it has begun, or ended.

        Raises:
            errors.JobStoreUnavailable: the store does not answer.
        """
        if job.state.is_final or job.progress:
            return 0
        line = self._lines[asked_id(job.request.spec.model_id)]
        if job.state is JobState.QUEUED:
            line.begun.discard(job.id)  # its run was lost, and it waits again
        elif job.id in line.begun:
            return 0
        await self._look(job, line)
        if job.id not in line.job_ids:
            return 0
        ahead = line.job_ids[: line.job_ids.index(job.id)]
        return 1 + sum(other not in line.begun for other in ahead)

    async def ahead(self, job: Job) -> int:
        """Count the jobs that are at work, or in turn before one that waits for a driver.

        Raises:
            errors.JobStoreUnavailable: the store does not answer.
        """
        turns = self._turns
        async with turns.look:
            is_fresh = time.monotonic() - turns.looked_at < _FRESH_S
            if not is_fresh or job.id not in turns.places:  # else it may have come since
                turns.num_begun, waiting = await self._store.turns()
                turns.places = {job_id: place for place, job_id in enumerate(waiting)}
                turns.looked_at = time.monotonic()
        place = turns.places.get(job.id)
        return 0 if place is None else turns.num_begun + place

    async def _look(self, job: Job, line: _Line) -> None:
        model_id = asked_id(job.request.spec.model_id)
        async with line.look:  # who comes meanwhile takes what the first one saw
            is_fresh = time.monotonic() - line.looked_at < _FRESH_S
            if is_fresh and job.id in line.job_ids:  # else it may have come since
                return
            line.job_ids = await self._store.waiting(model_id)
            line.begun.intersection_update(line.job_ids)
            line.looked_at = time.monotonic()
