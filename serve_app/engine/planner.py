"""Which calls go into the next forward. Pure Python: no torch, no clock, no thread.

The rules, in order of weight:

1. Urgent calls go first, those of the lowest rank before others: VAE work, which is short and
   begins or ends a request, then ControlNets, so that whoever has one joins the next denoiser
   forward. Each of them leads to a denoiser call or the end, and no request is started meanwhile.
2. Calls that cannot share a forward form groups. The oldest `turn_groups` of them take turns of
   `turn_ticks` forwards, least recently served first. A turn may go on with another group of the
   same variant, since switching IP adapters or token merging costs time.
3. Inside a group the oldest requests go first, up to the row cap. On a device that is full with
   one request the others thus wait by age instead of slowing one another.
4. Requests that wait to be started are members of a group too, so that one that needs another
   variant is not left behind; at most `max_starts` are started at once, `max_live` are alive.

The oldest request of all is always in a group that takes part, and first in it: nobody starves.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Candidate", "Plan", "Planner", "Policy"]


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits and fairness. `max_live` counts started requests; a turn is counted in forwards."""

    max_live: int = 32
    max_starts: int = 4
    turn_ticks: int = 8
    turn_groups: int = 2


@dataclass(frozen=True, slots=True)
class Candidate:
    """A parked call, or a request that waits to be started (`group` is None, no rows).

    seq: age of its request, lower is older; a request has at most one candidate.
    group: calls with equal groups can share a forward.
    variant: state of the shared modules that the request needs.
    rank: of an urgent call.
    """

    seq: int
    variant: Hashable
    group: Hashable = None
    rows: int = 0
    urgent: bool = False
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What one tick does: start these requests, then run these calls in one forward.

    variant: to be applied first; meaningless when the forward is urgent and nothing starts.
    limit: rows that one forward may have. Only a single call can be larger; it is run in parts.
    """

    variant: Hashable = None
    start: tuple[int, ...] = ()
    batch: tuple[int, ...] = ()
    limit: int = 0
    urgent: bool = False


_Group = tuple[Hashable, Hashable]  # variant and group


class Planner:
    """Remembers whose turn it is."""

    def __init__(self, policy: Policy, row_limit: Callable[[Hashable], int]) -> None:
        self._policy = policy
        self._row_limit = row_limit
        self._turn: _Group | None = None
        self._used = 0
        self._clock = 0
        self._served: dict[_Group, int] = {}

    def next(self, calls: Iterable[Candidate], waiting: Iterable[Candidate], live: int) -> Plan:
        """Plan one tick; an empty plan when there is nothing to do.

        calls: parked calls, in any order.
        waiting: requests not yet started.
        live: requests started and not ended.
        """
        parked = sorted(calls, key=_age)
        urgent = sorted((call for call in parked if call.urgent), key=_rank)
        if urgent:
            return self._fill(Plan(urgent=True), _same_group(urgent))
        slots = max(0, self._policy.max_live - live)
        startable = sorted(waiting, key=_age)[:slots]
        groups = _by_group(sorted([*parked, *startable], key=_age))
        if not groups:
            return Plan()
        variant, group = turn = self._choose(list(groups))
        start = [item.seq for item in startable if item.variant == variant]
        plan = Plan(variant=variant, start=tuple(start[: self._policy.max_starts]))
        if group is None:
            return plan
        self._used += 1
        self._served[turn] = self._clock
        return self._fill(plan, groups[turn])

    def _choose(self, by_age: list[_Group]) -> _Group:
        """Keep the turn or pass it on; `by_age` has the group of the oldest request first."""
        self._clock += 1
        rotation = by_age[: self._policy.turn_groups]
        # A group that joins the rotation counts as just served; else newcomers always went first.
        self._served = {group: self._served.get(group, self._clock) for group in rotation}
        is_used_up = self._used >= self._policy.turn_ticks
        if self._turn in rotation and (not is_used_up or len(rotation) == 1):
            return self._turn
        pool = [group for group in rotation if group != self._turn]
        if self._turn is not None and not is_used_up:
            pool = [group for group in pool if group[0] == self._turn[0]] or pool
        turn = min(pool, key=self._served.__getitem__)
        if is_used_up or self._turn is None or turn[0] != self._turn[0]:
            self._used = 0
        self._turn = turn
        return turn

    def _fill(self, plan: Plan, members: Sequence[Candidate]) -> Plan:
        """Take calls by age while they fit; the first always, however large."""
        limit = max(1, self._row_limit(members[0].group))
        batch = [members[0].seq]
        rows = members[0].rows
        for call in members[1:]:
            if rows + call.rows <= limit:
                batch.append(call.seq)
                rows += call.rows
        return Plan(plan.variant, plan.start, tuple(batch), limit, plan.urgent)


def _age(candidate: Candidate) -> int:
    return candidate.seq


def _rank(candidate: Candidate) -> int:
    return candidate.rank


def _same_group(calls: Sequence[Candidate]) -> list[Candidate]:
    return [call for call in calls if call.group == calls[0].group]


def _by_group(candidates: Iterable[Candidate]) -> dict[_Group, list[Candidate]]:
    groups: dict[_Group, list[Candidate]] = {}
    for item in candidates:
        groups.setdefault((item.variant, item.group), []).append(item)
    return groups
