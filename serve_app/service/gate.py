"""`Gate`: refuses calls that would be refused anyway, for the price of a comparison.

The store has the last word on whether a job is accepted; to ask it costs a millisecond, and before
that a body has to be read and pictures are stored. The gate estimates the number of open jobs: jobs
accepted here are added, and only when it seems full is the store asked what is really open, at most
every `_LOOK_S`. So a free place may stay free that long.

Beyond `max_open` some places are for keys that have no open job. Who has one the store knows; keys
that it refused are refused here for `_LOOK_S`.
"""

import asyncio
import time

from serve_app import errors
from serve_app.jobs.protocol import JobStore

__all__ = ["Gate"]

_LOOK_S = 0.2


class Gate:
    """An estimate of open jobs; it errs only on the side of letting a call pass to the store.

    guests: places beyond `max_open`.
    """

    def __init__(self, store: JobStore, max_open: int, guests: int = 0) -> None:
        self._store = store
        self._max_open = max_open
        self._guests = guests
        self._num_open = 0
        self._looked_at = -_LOOK_S
        self._look: asyncio.Task[None] | None = None
        self._refused: dict[str, float] = {}  # until when, by key

    async def check(self, key_id: str | None = None) -> None:
        """Refuse a call while there is no place, not for this key or, None, for any.

        Raises:
            errors.Overloaded: too many jobs are open.
            errors.JobStoreUnavailable: it was asked.
        """
        if self._is_full() and time.monotonic() - self._looked_at >= _LOOK_S:
            if self._look is None:  # else who comes meanwhile waits for the same answer
                self._look = asyncio.create_task(self._ask())
            await asyncio.shield(self._look)
        if self._num_open >= self._max_open + self._guests:
            raise errors.Overloaded()
        if self._is_full() and self._refused.get(key_id or "", 0.0) > time.monotonic():
            raise errors.Overloaded()

    async def admit(self, key_id: str) -> None:
        """Take a place, just before the store is asked for one; raises as `check`."""
        await self.check(key_id)
        self._num_open += 1

    def close(self, key_id: str) -> None:
        """Note that the store has refused a key: others, elsewhere, have taken the places."""
        now = time.monotonic()
        self._num_open = max(self._num_open, self._max_open)
        self._refused = {key: until for key, until in self._refused.items() if until > now}
        self._refused[key_id] = now + _LOOK_S

    def _is_full(self) -> bool:
        return self._num_open >= self._max_open

    async def _ask(self) -> None:
        try:
            self._num_open = sum((await self._store.count_open()).values())
        finally:
            self._looked_at, self._look = time.monotonic(), None
