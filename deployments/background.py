"""`Rounds`: what runs beside the calls of a replica for as long as it lives."""

import asyncio
from collections.abc import Coroutine

__all__ = ["Rounds"]


class Rounds:
    """Endless tasks of one replica, started at once."""

    def __init__(self, *work: Coroutine[None, None, None]) -> None:
        self._tasks = [asyncio.create_task(part) for part in work]

    def check_health(self) -> None:
        """Raise RuntimeError when one has ended, by a bug: the replica would serve what is old."""
        for task in self._tasks:
            if task.done():
                raise RuntimeError(f"a round has ended: {task}")

    async def close(self) -> None:
        """Cancel them and wait for their ends."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
