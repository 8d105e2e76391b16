"""`Queue`: which place a job has among those that have not begun, of its model and of all.

One question to the store serves all who ask within `_FRESH_S`; jobs that are accepted here
meanwhile join what it said (`joined`). Who has begun the store learns every few seconds only, from
the leases; whoever sees jobs at work says so here (`saw`).
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from functools import partial

from serve_app.jobs.line import Line
from serve_app.jobs.protocol import JobStore
from serve_app.models.revision import asked_id
from serve_app.types import Job, JobState

__all__ = ["Queue"]

_FRESH_S = 0.25
_MAX_BEGUN = 4096  # jobs of a model that are remembered to be at work


@dataclass(slots=True)
class _Seen:
    """A line as last seen. begun: jobs that wait as far as the store knows, and are at work."""

    line: Line = field(default_factory=Line)
    begun: set[int] = field(default_factory=set)
    looked_at: float = -_FRESH_S
    look: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def is_fresh(self) -> bool:
        return time.monotonic() - self.looked_at < _FRESH_S

    async def ahead_of(self, job: Job, ask: Callable[[], Awaitable[Line]]) -> list[int] | None:
        """Return who is ahead of a job, by a look if need be; None: it does not wait."""
        async with self.look:  # who comes meanwhile takes what the first one saw
            ahead = self.line.ahead_of(job.id) if self.is_fresh else None
            if ahead is None:  # else it may have come since, elsewhere
                self.line = await ask()
                self.looked_at = time.monotonic()
                self.begun.intersection_update(self.line.job_ids)
                ahead = self.line.ahead_of(job.id)
        return ahead


class Queue:
    """One per ingress."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._of_models: dict[str, _Seen] = defaultdict(_Seen)
        self._of_all = _Seen()

    def joined(self, job: Job) -> None:
        """Note that a job was accepted just now."""
        of_model = self._of_models[asked_id(job.request.spec.model_id)]
        if of_model.is_fresh:
            of_model.line.join(job)
        if not self._of_all.is_fresh:
            return
        if job.state is JobState.QUEUED:
            self._of_all.line.join(job)
        else:
            self._of_all.line.begin(job)

    def saw(self, model_id: str, job_ids: Collection[int]) -> None:
        """Note that these jobs are at work."""
        if not job_ids:
            return
        begun = self._of_models[asked_id(model_id)].begun
        if len(begun) > _MAX_BEGUN:  # nobody has asked for a place, which forgets what has ended
            begun.clear()
        begun.update(job_ids)

    async def place(self, job: Job) -> int:
        """Return 1 for the job that is to begin next, and so on; 0: it has begun, or ended.

        Raises:
            errors.JobStoreUnavailable: the store does not answer.
        """
        if job.state.is_final or job.progress:
            return 0
        model_id = asked_id(job.request.spec.model_id)
        seen = self._of_models[model_id]
        if job.state is JobState.QUEUED:
            seen.begun.discard(job.id)  # its run was lost, and it waits again
        elif job.id in seen.begun:
            return 0
        ahead = await seen.ahead_of(job, partial(self._store.waiting, model_id))
        return 0 if ahead is None else 1 + len(set(ahead) - seen.begun)

    async def ahead(self, job: Job) -> int:
        """Count the jobs that are at work, or in turn before one that waits for a driver.

        Raises:
            errors.JobStoreUnavailable: the store does not answer.
        """
        ahead = await self._of_all.ahead_of(job, self._store.turns)
        return 0 if ahead is None else self._of_all.line.num_begun + len(ahead)
