"""`RateLimiter`: how often one API key may ask for work, or one address guess a key."""

import time
from typing import NoReturn

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter

from serve_app import errors

__all__ = ["RateLimiter"]


class RateLimiter:
    """Calls of each key within the last 60 seconds, counted in this process.

    Args:
        per_minute: calls allowed; 0: any number.
    """

    def __init__(self, per_minute: int) -> None:
        self._item = RateLimitItemPerMinute(per_minute) if per_minute else None
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    async def check(self, key_id: str) -> None:
        """Count nothing; raises as `count` where it would be refused."""
        if self._item is not None and not await self._limiter.test(self._item, key_id):
            await self._refuse(self._item, key_id)

    async def count(self, key_id: str) -> None:
        """Count a call; one that is refused does not count.

        Raises:
            errors.RateLimited: too many; it names the seconds until the next one is allowed.
        """
        if self._item is None or await self._limiter.hit(self._item, key_id):
            return
        await self._refuse(self._item, key_id)

    async def _refuse(self, item: RateLimitItemPerMinute, key_id: str) -> NoReturn:
        window = await self._limiter.get_window_stats(item, key_id)
        raise errors.RateLimited(max(window.reset_time - time.time(), 0.0))
