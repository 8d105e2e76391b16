"""`Stalls`: how long the event loop of a test stood still at most, and what the test cost."""

import asyncio
import contextlib
import time

MAX_STALL_S = 0.25  # what another client may notice
_TICK_S = 0.001


class Stalls:
    """Measures the longest stall and the whole, in CPU time of the whole process.

    CPU time, because a busy machine lets a test wait that does nothing. Of the whole process,
    because the loop stands still also while another thread holds the interpreter; threads that
    run side by side spend more than passes on the clock, which is then the bound.
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
        spent_s, clock_s = time.process_time(), time.monotonic()
        while True:
            try:
                await asyncio.sleep(_TICK_S)
            finally:
                stall_s = min(time.process_time() - spent_s, time.monotonic() - clock_s)
                self.longest_s = max(self.longest_s, stall_s)
                spent_s, clock_s = time.process_time(), time.monotonic()


async def least_stalls(call):
    """Run `call` again where it stalled the loop; return its result and the shorter stalls.

    What a body costs, it costs each time. What comes once (an import, a collection of garbage
    over all that earlier tests left, a machine that pages) is not the body's.
    """
    for _ in range(2):
        async with Stalls() as stalls:
            result = await call()
        if stalls.longest_s <= MAX_STALL_S:
            break
    return result, stalls
