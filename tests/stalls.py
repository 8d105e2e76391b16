"""`Stalls`: how long the event loop of a test stood still at most, and what the test cost."""

import asyncio
import contextlib
import time

MAX_STALL_S = 0.25  # what another client may notice
_TICK_S = 0.001


class Stalls:
    """Measures the longest stall and the whole, in CPU time of the whole process.

    CPU time, because a busy machine lets a test wait that does nothing. Of the whole process,
    because the loop stands still also while another thread holds the interpreter.
    """

    def __init__(self):
        self.longest_s = 0.0
        self.spent_s = 0.0

    async def __aenter__(self):
        self._begun_s = time.process_time()
        self._ticks = asyncio.create_task(self._tick())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_exc):
        await asyncio.sleep(0)
        self.spent_s = time.process_time() - self._begun_s
        self._ticks.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._ticks

    async def _tick(self):
        before = time.process_time()
        while True:
            try:
                await asyncio.sleep(_TICK_S)
            finally:
                now = time.process_time()
                self.longest_s = max(self.longest_s, now - before)
                before = now
