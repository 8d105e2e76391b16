"""`Background`: tasks that outlive their caller, referenced until they end."""

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["Background"]

T = TypeVar("T")


class Background:
    """The event loop holds tasks only weakly: one that nobody else holds may vanish half way."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(
        self, work: Coroutine[Any, Any, T], context: contextvars.Context | None = None
    ) -> "asyncio.Task[T]":
        """Start a task in the running loop.

        context: an empty one for work that belongs to no request, which Serve would cancel with it.
        """
        task = asyncio.create_task(work, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def wait(self) -> None:
        """Wait until all that run now have ended; raises what the first of them raises."""
        await asyncio.gather(*self._tasks)

    async def cancel(self) -> None:
        """Cancel all that run now and wait for their ends."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
