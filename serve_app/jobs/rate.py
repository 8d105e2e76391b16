"""`RateLimiter`: how often one API key may ask for work."""

import time

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

    async def count(self, key_id: str) -> None:
        """Count a call; one that is refused does not count.

        Raises:
            errors.RateLimited: too many; it names the seconds until the next one is allowed.
        """
        if self._item is None or await self._limiter.hit(self._item, key_id):
            return
        window = await self._limiter.get_window_stats(self._item, key_id)
        raise errors.RateLimited(max(window.reset_time - time.time(), 0.0))
