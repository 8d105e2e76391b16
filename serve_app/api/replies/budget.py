"""`Budget`: bytes that replies may hold at a time in one ingress."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from serve_app import errors

__all__ = ["Budget"]


class Budget:
    """Who finds no room waits in turn, so that a large picture is not overtaken for ever.

    Args:
        max_bytes: of all that is held.
        wait_s: seconds that anybody waits.
    """

    def __init__(self, max_bytes: int, wait_s: float) -> None:
        self._max_bytes = max_bytes
        self._wait_s = wait_s
        self._held_bytes = 0
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def hold(self, num_bytes: int) -> AsyncIterator[None]:
        """Take room for the time of the block; one larger than the budget has it for itself.

        Raises:
            errors.Overloaded: there was none for `wait_s`.
        """
        wanted = min(num_bytes, self._max_bytes)
        try:
            async with asyncio.timeout(self._wait_s), self._turn:
                while self._held_bytes + wanted > self._max_bytes:
                    self._freed.clear()
                    await self._freed.wait()
                self._held_bytes += wanted
        except TimeoutError:
            raise errors.Overloaded() from None
        try:
            yield
        finally:
            self._held_bytes -= wanted
            self._freed.set()
