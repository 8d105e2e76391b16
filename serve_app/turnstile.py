"""`Turnstile`: lets so many in at a time, and of those who wait the owner who is due."""

import asyncio
import contextlib
import itertools
from collections import Counter, deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from serve_app.fairness import Places, Stake, VirtualTime, line_place

__all__ = ["Turnstile"]


@dataclass(slots=True, eq=False)
class _Visitor:
    stake: Stake
    place: int
    may_enter: "asyncio.Future[None]"


class Turnstile:
    """One per event loop. Owners come in by weight, the visits of one by age and priority."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._inside = Counter[str]()
        self._lines: dict[str, deque[_Visitor]] = {}
        self._time = VirtualTime()
        self._numbers = itertools.count()

    @contextlib.asynccontextmanager
    async def visit(self, stake: Stake) -> AsyncIterator[None]:
        """Wait for a place, and hold it."""
        place = line_place(next(self._numbers), stake)
        visitor = _Visitor(stake, place, asyncio.get_running_loop().create_future())
        self._queue(visitor)
        self._admit()
        try:
            await visitor.may_enter
        except asyncio.CancelledError:
            self._leave(visitor)
            raise
        try:
            yield
        finally:
            self._leave(visitor)

    def _queue(self, visitor: _Visitor) -> None:
        line = self._lines.setdefault(visitor.stake.owner, deque())
        line.append(visitor)
        if len(line) > 1 and line[-2].place > visitor.place:
            self._lines[visitor.stake.owner] = deque(sorted(line, key=lambda one: one.place))

    def _leave(self, visitor: _Visitor) -> None:
        """Return a place, or leave the line."""
        owner = visitor.stake.owner
        if visitor.may_enter.done() and not visitor.may_enter.cancelled():
            self._inside[owner] -= 1
            self._inside = +self._inside
        elif visitor in self._lines.get(owner, ()):
            self._lines[owner].remove(visitor)
            self._drop_empty(owner)
        self._admit()

    def _admit(self) -> None:
        """Admit all who may come in now."""
        weights = dict.fromkeys(self._inside, 1.0)
        for owner, line in self._lines.items():
            weights[owner] = max(visitor.stake.pull for visitor in line)
        self._time.begin(self._lines.keys())
        while owners := [
            owner for owner in self._lines if self._places.has_room(owner, self._inside, weights)
        ]:
            owner = min(owners, key=lambda one: (self._time.tag(one), self._lines[one][0].place))
            visitor = self._lines[owner].popleft()
            self._drop_empty(owner)
            if visitor.may_enter.cancelled():  # and its task has not heard of it yet
                continue
            self._inside[owner] += 1
            self._time.spend(owner, 1 / visitor.stake.pull)
            visitor.may_enter.set_result(None)
        self._time.end(self._lines.keys())

    def _drop_empty(self, owner: str) -> None:
        if not self._lines[owner]:
            del self._lines[owner]
