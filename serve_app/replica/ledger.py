"""`Ledger`: which models a replica holds, who waits for which, and what has to leave.

Pure decisions over plain numbers: no clock, no task, no weights. `cache.ModelCache` carries them
out on an event loop; a simulation may do so in its own time.

The rules:
- A model in use never leaves. Unused ones leave when their room is needed, least recently used
  first, or when nobody has asked for them for `idle_s`.
- Models that wait are loaded strictly in the order in which they were first asked for.
- Once loaded, a model serves everybody who waited for it, and anybody else for `turn_s`. After that
  it may be closed for the sake of the first in the queue: those who use it finish, new callers wait
  like those of any absent model. So a model that is always in use cannot starve another one: the
  first in the queue waits for no longer than `turn_s`, the longest use, one unload and one load.
"""

import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Generic, TypeVar

__all__ = ["Ledger", "LedgerRules", "Step"]

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class LedgerRules:
    """Sizes in bytes, times in seconds."""

    budget_bytes: int
    max_loads: int = 1  # at a time
    turn_s: float = 10.0
    idle_s: float = math.inf


@dataclass(frozen=True, slots=True)
class Step(Generic[K]):
    """What is to be done now. `wake_at`: when to ask again if nothing else happens."""

    grants: list[K] = field(default_factory=list)  # all who wait for these are served
    loads: list[K] = field(default_factory=list)
    unloads: list[K] = field(default_factory=list)
    wake_at: float = math.inf


class _Phase(Enum):
    LOADING = auto()
    HELD = auto()
    LEAVING = auto()


@dataclass(slots=True)
class _Place:
    """A model that has memory. Its bytes are an estimate until it is loaded."""

    num_bytes: int
    phase: _Phase = _Phase.LOADING
    users: int = 0
    loaded_at: float = 0.0
    used_at: float = 0.0
    is_retired: bool = False
    is_closing: bool = False  # new callers wait until another model had its turn


@dataclass(slots=True)
class _Queue:
    num_bytes: int
    callers: int = 0


class Ledger(Generic[K]):
    """Report what happens to it, then ask for the next `step`. Times must not run backwards."""

    def __init__(self, rules: LedgerRules) -> None:
        self._rules = rules
        self._places: dict[K, _Place] = {}
        self._queues: dict[K, _Queue] = {}  # in order of their first callers
        self._measured: dict[K, int] = {}

    @property
    def used_bytes(self) -> int:
        """Memory of all models, those that are coming or leaving included."""
        return sum(place.num_bytes for place in self._places.values())

    @property
    def held(self) -> list[K]:
        """Models that can be used."""
        return [key for key, place in self._places.items() if place.phase is _Phase.HELD]

    @property
    def loading(self) -> list[K]:
        """Models that are being loaded."""
        return [key for key, place in self._places.items() if place.phase is _Phase.LOADING]

    @property
    def queued(self) -> list[K]:
        """Models that wait for their load to begin, the next one first."""
        loading = set(self.loading)
        return [key for key in self._queues if key not in loading]

    def callers(self, key: K) -> int:
        """Count those who use a model or wait for it."""
        place, queue = self._places.get(key), self._queues.get(key)
        return (place.users if place else 0) + (queue.callers if queue else 0)

    def calls(self) -> dict[K, int]:
        """Count the callers of each model that has any."""
        keys = dict.fromkeys((*self._places, *self._queues))
        return {key: count for key in keys if (count := self.callers(key))}

    def size(self, key: K) -> int:
        """Bytes of a model, as measured or as estimated by who asked first; 0: not known."""
        if key in self._measured:
            return self._measured[key]
        place, queue = self._places.get(key), self._queues.get(key)
        return place.num_bytes if place else queue.num_bytes if queue else 0

    def fits(self, num_bytes: int) -> bool:
        """Whether a model would fit if it were alone."""
        return num_bytes <= self._rules.budget_bytes

    def ask(self, key: K, num_bytes: int) -> bool:
        """Use a model of this size: True if it is held, else the caller waits for a grant."""
        if self._is_open(key):
            self._places[key].users += 1
            return True
        self._queues.setdefault(key, _Queue(num_bytes)).callers += 1
        return False

    def withdraw(self, key: K) -> None:
        """One caller who waited has left. A load that has begun goes on."""
        queue = self._queues[key]
        queue.callers -= 1
        if not queue.callers:
            del self._queues[key]

    def release(self, key: K, now: float) -> None:
        """One use has ended."""
        place = self._places[key]
        assert place.users > 0, "only what is used can be released"
        place.users -= 1
        place.used_at = now

    def retire(self, key: K) -> None:
        """Refuse a held model new callers; it leaves when the last one has finished."""
        if (place := self._places.get(key)) and place.phase is _Phase.HELD:
            place.is_retired = True

    def loaded(self, key: K, num_bytes: int, now: float) -> None:
        """A load has ended well; num_bytes is what the model really takes."""
        place = self._places[key]
        place.phase, place.num_bytes = _Phase.HELD, num_bytes
        place.loaded_at = place.used_at = now
        self._measured[key] = num_bytes

    def failed(self, key: K) -> None:
        """A load has failed: its callers have got an error, its memory is free."""
        del self._places[key]
        self._queues.pop(key, None)

    def unloaded(self, key: K) -> None:
        """A model has left; its memory is free."""
        assert self._places[key].phase is _Phase.LEAVING, "only what was told to leave has left"
        del self._places[key]

    def step(self, now: float) -> Step[K]:
        """Decide what can be done at this moment; what is returned counts as begun."""
        step: Step[K] = Step()
        while self._grant(step) or self._make_way(step, now):
            pass
        self._send_away(self._forgotten(now), step)
        wake_at = min([*self._turn_ends(now), *self._idle_ends()], default=math.inf)
        return Step(step.grants, step.loads, step.unloads, wake_at)

    def _grant(self, step: Step[K]) -> bool:
        """Serve those who wait for models that are held and open."""
        for first in self.queued[:1]:
            if place := self._places.get(first):
                place.is_closing = False  # it was closed for another, and now it is first itself
        served = [key for key in self._queues if self._is_open(key)]
        for key in served:
            self._places[key].users += self._queues.pop(key).callers
        step.grants.extend(served)
        return bool(served)

    def _make_way(self, step: Step[K], now: float) -> bool:
        """Load the first in the queue, or close what is in its way; True: look at the queue again.

        Who has to leave is decided anew each time, and whom it spares is open again.
        """
        can_load = len(self.loading) < self._rules.max_loads
        nexts = self.queued[:1] if can_load else []
        need = sum(self._queues[key].num_bytes for key in nexts)
        closed = [key for key, place in self._places.items() if place.is_closing]
        for key in closed:
            self._places[key].is_closing = False
        self._send_away(self._victims(need, now), step)
        for key in nexts:
            if key not in self._places and self._has_room(need):
                self._places[key] = _Place(need)
                step.loads.append(key)
                return True
        return any(key in self._queues and self._is_open(key) for key in closed)

    def _is_open(self, key: K) -> bool:
        place = self._places.get(key)
        if place is None or place.phase is not _Phase.HELD:
            return False
        return not (place.is_closing or place.is_retired)

    def _has_room(self, num_bytes: int) -> bool:
        return self.used_bytes + num_bytes <= self._rules.budget_bytes

    def _victims(self, need: int, now: float) -> list[K]:
        """Choose who leaves for `need` bytes more; nobody, if it would not be enough."""
        leaving = sum(p.num_bytes for p in self._places.values() if p.phase is _Phase.LEAVING)
        missing = self.used_bytes - leaving + need - self._rules.budget_bytes
        is_over = self.used_bytes > self._rules.budget_bytes  # a model turned out larger
        chosen: list[K] = []
        for key in self._candidates(now, any_turn=is_over):
            if missing <= 0:
                break
            chosen.append(key)
            missing -= self._places[key].num_bytes
        return chosen if missing <= 0 else []

    def _candidates(self, now: float, *, any_turn: bool) -> list[K]:
        """Who may leave, in this order: unused ones by last use, then those whose turn is over."""
        held = {key: self._places[key] for key in self.held}
        idle = sorted((p.used_at, i, k) for i, (k, p) in enumerate(held.items()) if not p.users)
        busy = sorted(
            (p.loaded_at, i, k)
            for i, (k, p) in enumerate(held.items())
            if p.users and (any_turn or p.loaded_at + self._rules.turn_s <= now)
        )
        return [key for *_, key in (*idle, *busy)]

    def _send_away(self, victims: list[K], step: Step[K]) -> None:
        for key in victims:
            place = self._places[key]
            if place.users:
                place.is_closing = True
            else:
                place.phase = _Phase.LEAVING
                step.unloads.append(key)

    def _forgotten(self, now: float) -> list[K]:
        unused = {key: self._places[key] for key in self.held if not self._places[key].users}
        return [
            key
            for key, place in unused.items()
            if place.is_retired or place.used_at + self._rules.idle_s <= now
        ]

    def _turn_ends(self, now: float) -> list[float]:
        """When models in use may be closed, if somebody waits for that."""
        if not self.queued:
            return []
        ends = [self._places[key].loaded_at + self._rules.turn_s for key in self.held]
        return [end for end in ends if end > now]

    def _idle_ends(self) -> list[float]:
        unused = [self._places[key] for key in self.held if not self._places[key].users]
        return [place.used_at + self._rules.idle_s for place in unused]
