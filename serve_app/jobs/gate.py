"""`Gate`: refuses calls that would be refused anyway, for the price of a comparison.

The store has the last word on whether a job is accepted; to ask it costs a millisecond, and before
that a body has to be read and pictures are stored. The gate estimates the number of open jobs: jobs
accepted here are added, and only when it seems full is the store asked what is really open, at most
every `_LOOK_S`. So a free place may stay free that long.
"""

import time

from serve_app import errors
from serve_app.jobs.protocol import JobStore

__all__ = ["Gate"]

_LOOK_S = 0.2


class Gate:
    """An estimate of open jobs; it errs only on the side of letting a call pass to the store."""

    def __init__(self, store: JobStore, max_open: int) -> None:
        self._store = store
        self._max_open = max_open
        self._num_open = 0
        self._looked_at = -_LOOK_S

    async def check(self) -> None:
        """Refuse a call while there is no place.

        Raises:
            errors.Overloaded: too many jobs are open.
            errors.JobStoreUnavailable: it was asked.
        """
        now = time.monotonic()
        if self._num_open >= self._max_open and now - self._looked_at >= _LOOK_S:
            self._looked_at = now  # before the answer: who comes meanwhile does not ask too
            self._num_open = sum((await self._store.count_open()).values())
        self._refuse_if_full()

    def enter(self) -> None:
        """Take a place, just before the store is asked for one.

        Raises:
            errors.Overloaded: others took the last one since `check`.
        """
        self._refuse_if_full()
        self._num_open += 1

    def close(self) -> None:
        """Note that the store has refused: others, elsewhere, have taken the places."""
        self._num_open = max(self._num_open, self._max_open)

    def _refuse_if_full(self) -> None:
        if self._num_open >= self._max_open:
            raise errors.Overloaded()
