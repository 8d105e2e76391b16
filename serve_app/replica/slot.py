"""`Slot`: the painter that serves now, and those that finish what they began before it came."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from serve_app import errors
from serve_app.background import Background
from serve_app.engine.metrics import Counters, EngineSnapshot, total
from serve_app.models.protocol import Desired
from serve_app.pipelines.protocol import Painter

__all__ = ["Served", "Slot", "run_and_forget"]


@dataclass(slots=True, eq=False)
class Served:
    """A painter with the weights that it holds.

    desired: what they were loaded for. digest: of their files. load_s: seconds that loading took.
    uses: paints at work, counted by the slot.
    """

    painter: Painter
    desired: Desired
    digest: str
    load_s: float
    uses: int = 0


class Slot:
    """Room for one painter, or for two while one takes over from another.

    Paints hold the painter that they began with; one that was replaced is closed after the last of
    them. Everything runs on the event loop but `close`, which any thread may call.

    Args:
        tidy: gives the memory of a painter that is gone back to the device; blocks.
    """

    def __init__(self, tidy: Callable[[], None] = lambda: None) -> None:
        self._tidy = tidy
        self._current: Served | None = None
        self._leaving: set[Served] = set()
        self._waiting: list[asyncio.Future[None]] = []
        self._closing = Background()
        self._past = _nothing()
        self._is_closed = False
        self._lock = threading.Lock()  # of all above but `_closing`: `close` has another thread

    @property
    def current(self) -> Served | None:
        """What new paints get; None while there is nothing."""
        return self._current

    @property
    def is_closed(self) -> bool:
        """Whether it takes no painter any more."""
        return self._is_closed

    @contextlib.asynccontextmanager
    async def use(self) -> AsyncIterator[Served]:
        """Hold the current painter; waits for one while the slot is empty.

        Raises:
            errors.ReplicaLost: the slot is closed.
        """
        await self._until(lambda: self._current is not None or self._is_closed)
        served = self._current
        if served is None:
            raise errors.ReplicaLost("the painter is closed")
        served.uses += 1
        try:
            yield served
        finally:
            served.uses -= 1
            self._wake()
            if served in self._leaving and served.uses == 0:
                self._closing.start(self._close_one(served))

    def put(self, served: Served) -> None:
        """Install this painter for new paints; the old one is closed when its last paint ends."""
        with self._lock:
            replaced: Served | None = served
            if not self._is_closed:
                replaced, self._current = self._current, served
            if replaced is not None:
                self._leaving.add(replaced)
        self._wake()
        if replaced is not None and replaced.uses == 0:
            self._closing.start(self._close_one(replaced))

    async def empty(self) -> None:
        """Make new paints wait, and close the current painter when its last paint has ended."""
        with self._lock:
            served, self._current = self._current, None
            if served is not None:
                self._leaving.add(served)
        if served is not None and served.uses == 0:
            self._closing.start(self._close_one(served))
        del served
        await self._until(lambda: not self._leaving)
        await self._closing.wait()

    def close(self) -> None:
        """Close all painters; paints at work and waiting fail. Idempotent, blocks."""
        with self._lock:
            self._is_closed = True
        for served in self.held():
            served.painter.close()
        self._wake()

    def held(self) -> list[Served]:
        """The current painter and those that are leaving."""
        with self._lock:
            current = [] if self._current is None else [self._current]
            return [*current, *self._leaving]

    def snapshot(self) -> EngineSnapshot:
        """Count what all painters did, those that are gone too; rates are the current one's."""
        with self._lock:
            current, leaving_now = self._current, list(self._leaving)
        leaving = [served.painter.snapshot() for served in leaving_now]
        now = _nothing() if current is None else current.painter.snapshot()
        return total(now, [self._past, *leaving])

    async def _close_one(self, served: Served) -> None:
        try:
            await asyncio.to_thread(run_and_forget, [served.painter.close])
        finally:
            self._past = total(served.painter.snapshot(), [self._past])
            with self._lock:
                self._leaving.discard(served)
            del served  # or it would outlive the tidying below
            await asyncio.to_thread(self._tidy)
            self._wake()

    async def _until(self, is_so: Callable[[], bool]) -> None:
        while True:
            with self._lock:  # or a change between the look and the wait would wake nobody
                if is_so():
                    return
                changed = asyncio.get_running_loop().create_future()
                self._waiting.append(changed)
            await changed

    def _wake(self) -> None:
        """Wake everybody to look again; from any thread."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for changed in waiting:
            with contextlib.suppress(RuntimeError):  # its event loop is closed
                changed.get_loop().call_soon_threadsafe(_resolve, changed)


def _resolve(changed: "asyncio.Future[None]") -> None:
    if not changed.done():
        changed.set_result(None)


def _nothing() -> EngineSnapshot:
    return Counters().snapshot(time.monotonic(), 0, 0, {})


def run_and_forget(box: list[Callable[[], None]]) -> None:
    """Run the call in the box and let go of it, and so of the object that it belongs to.

    A worker thread forgets what it was given a little after it has told the result. The memory of a
    painter is tidied at once, and what was still held then would stay on the device.
    """
    box.pop()()
