"""Which calls go into the next forward. Pure Python: no torch, no clock, no thread.

The rules, in order of weight:

1. Urgent calls go first, those of the lowest rank before others: VAE work, which is short and
   begins or ends a request, then ControlNets, so that whoever has one joins the next denoiser
   forward. Each of them leads to a denoiser call or the end, and no request is started meanwhile.
2. Owners share row-steps by weight (`serve_app.fairness`): the one who got least for his weight is
   next, and whoever has rows left over leaves them to others. Among the requests of one owner the
   oldest goes first. On a device that is full with one request the others thus wait by age instead
   of slowing one another.
3. Calls that cannot share a forward form groups. The first `turn_groups` of them take turns of
   `turn_ticks` forwards, least recently served first. A turn may go on with another group of the
   same variant, since switching IP adapters or token merging costs time. It ends early for an owner
   who is due and whose group has the same variant. Whoever keeps others waiting with a forward that
   is not full pays for a full one, since that is what it takes of the device.
4. Requests that wait to be started are members of a group too, so that one that needs another
   variant is not left behind; at most `max_starts` are started at once, `max_live` are alive, and
   `max_guests` beside them of owners who have less than their part of these.

An owner who is served falls behind one who is not, so that nobody starves.
"""

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from serve_app.fairness import PLAIN, Places, Stake, VirtualTime, line_place

__all__ = ["Candidate", "Plan", "Planner", "Policy"]


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits and fairness. `max_live` counts started requests; a turn is counted in forwards."""

    max_live: int = 32
    max_guests: int = 16
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
    stake: on whose behalf.
    """

    seq: int
    variant: Hashable
    group: Hashable = None
    rows: int = 0
    urgent: bool = False
    rank: int = 0
    stake: Stake = PLAIN

    @property
    def place(self) -> int:
        """Its place among those of its owner."""
        return line_place(self.seq, self.stake)


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


class _Group(NamedTuple):
    variant: Hashable
    group: Hashable


class Planner:
    """Remembers whose turn it is, and who got how much."""

    def __init__(self, policy: Policy, row_limit: Callable[[Hashable], int]) -> None:
        self._policy = policy
        self._places = Places(policy.max_live, policy.max_guests)
        self._row_limit = row_limit
        self._rows = VirtualTime()
        self._starts = VirtualTime()
        self._turn: _Group | None = None
        self._used = 0
        self._clock = 0
        self._served: dict[_Group, int] = {}

    def next(self, calls: Iterable[Candidate], waiting: Iterable[Candidate]) -> Plan:
        """Plan one tick; an empty plan when there is nothing to do.

        calls: parked calls of all requests that are started and not ended, in any order.
        waiting: requests not yet started.
        """
        live, waiting = list(calls), list(waiting)
        urgent = sorted((call for call in live if call.urgent), key=self._urgency)
        if urgent:
            return self._fill_urgent([call for call in urgent if call.group == urgent[0].group])
        self._rows.begin({call.stake.owner for call in live})
        startable = self._startable(live, waiting)
        groups = _by_group(sorted([*live, *startable], key=self._order))
        if not groups:
            return Plan()
        turn = self._choose({one: self._tag(members[0]) for one, members in groups.items()})
        start = [item for item in startable if item.variant == turn.variant]
        start = start[: self._policy.max_starts]
        self._note_starts(start, waiting)
        plan = Plan(variant=turn.variant, start=tuple(item.seq for item in start))
        if turn.group is None:
            self._rows.end({call.stake.owner for call in live})
            return plan
        self._used += 1
        self._served[turn] = self._clock
        return self._fill(plan, groups[turn], live)

    def _tag(self, candidate: Candidate) -> float:
        return self._rows.tag(candidate.stake.owner)

    def _order(self, candidate: Candidate) -> tuple[float, int]:
        return self._tag(candidate), candidate.place

    def _urgency(self, candidate: Candidate) -> tuple[int, float, int]:
        return candidate.rank, *self._order(candidate)

    def _startable(
        self, live: Sequence[Candidate], waiting: Sequence[Candidate]
    ) -> list[Candidate]:
        """Return who may be started now, in the order in which they are."""
        self._starts.begin({item.stake.owner for item in waiting})
        tags = self._starts.tags()
        held = Counter(call.stake.owner for call in live)
        weights: dict[str, float] = {}
        for stake in {item.stake for item in (*live, *waiting)}:
            weights[stake.owner] = max(weights.get(stake.owner, 0.0), stake.pull)
        may = {owner for owner in weights if self._places.has_room(owner, held, weights)}
        lines = _lines(item for item in waiting if item.stake.owner in may)
        found: list[Candidate] = []
        while lines:
            owner = min(lines, key=lambda one: (tags[one], lines[one][0].place))
            if not self._places.has_room(owner, held, weights):
                del lines[owner]
                continue
            item = _take(lines, owner)
            tags[owner] += 1 / item.stake.pull
            held[owner] += 1
            found.append(item)
        return found

    def _note_starts(self, start: Sequence[Candidate], waiting: Iterable[Candidate]) -> None:
        started = {item.seq for item in start}
        for item in start:
            self._starts.spend(item.stake.owner, 1 / item.stake.pull)
        self._starts.end({item.stake.owner for item in waiting if item.seq not in started})

    def _choose(self, tags: dict[_Group, float]) -> _Group:
        """Keep the turn or pass it on.

        tags: of each group's most deserving owner; the first group is that of the first request.
        """
        self._clock += 1
        order = list(tags)
        rotation = order[: self._policy.turn_groups]
        # A group that joins the rotation counts as just served; else newcomers always went first.
        self._served = {group: self._served.get(group, self._clock) for group in rotation}
        is_used_up = self._used >= self._policy.turn_ticks
        turn = self._turn
        if turn in tags and self._goes_on(turn, tags, rotation, is_used_up=is_used_up):
            return turn

        def key(group: _Group) -> tuple[bool, float, bool, int]:
            is_switch = turn is not None and group.variant != turn.variant and not is_used_up
            return is_switch, tags[group], group == turn, self._served[group]

        chosen = min(rotation, key=key)
        if is_used_up or turn is None or chosen.variant != turn.variant:
            self._used = 0
        self._turn = chosen
        return chosen

    @staticmethod
    def _goes_on(
        turn: _Group, tags: dict[_Group, float], rotation: Sequence[_Group], *, is_used_up: bool
    ) -> bool:
        """Whether a turn whose group has calls is not over."""
        first = rotation[0]
        if tags[first] < tags[turn]:  # another owner is due
            return not is_used_up and first.variant != turn.variant
        return turn in rotation and (not is_used_up or len(rotation) == 1)

    def _fill(self, plan: Plan, members: Iterable[Candidate], live: Iterable[Candidate]) -> Plan:
        """Take calls, owner by owner, while they fit; the first always, however large."""
        lines, tags = _lines(members), self._rows.tags()
        limit, rows, batch = 0, 0, list[Candidate]()
        while lines:
            owner = min(lines, key=lambda one: (tags[one], lines[one][0].place))
            call = _take(lines, owner)
            limit = limit or max(1, self._row_limit(call.group))
            if batch and rows + call.rows > limit:
                continue
            batch.append(call)
            rows += call.rows
            tags[owner] += call.rows / call.stake.pull
        taken = tuple(call.seq for call in batch)
        left = {call.stake.owner for call in live if call.seq not in taken}
        # An empty row of a forward that others wait for is lost to them like one at work. Where
        # nobody is left waiting nobody pays: `end` forgets it.
        scale = max(1.0, limit / rows)
        costs: dict[str, float] = {}
        for call in batch:
            cost = scale * call.rows / call.stake.pull
            costs[call.stake.owner] = costs.get(call.stake.owner, 0.0) + cost
        for owner, cost in costs.items():
            self._rows.spend(owner, cost)
        self._rows.end(left)
        return Plan(plan.variant, plan.start, taken, limit)

    def _fill_urgent(self, calls: Sequence[Candidate]) -> Plan:
        limit = max(1, self._row_limit(calls[0].group))
        batch: list[int] = []
        rows = 0
        for call in calls:
            if not batch or rows + call.rows <= limit:
                batch.append(call.seq)
                rows += call.rows
        return Plan(batch=tuple(batch), limit=limit, urgent=True)


def _lines(candidates: Iterable[Candidate]) -> dict[str, deque[Candidate]]:
    """Return what each owner wants, in his order."""
    lines: dict[str, deque[Candidate]] = {}
    for item in sorted(candidates, key=lambda candidate: candidate.place):
        lines.setdefault(item.stake.owner, deque()).append(item)
    return lines


def _take(lines: dict[str, deque[Candidate]], owner: str) -> Candidate:
    item = lines[owner].popleft()
    if not lines[owner]:
        del lines[owner]
    return item


def _by_group(candidates: Iterable[Candidate]) -> dict[_Group, list[Candidate]]:
    groups: dict[_Group, list[Candidate]] = {}
    for item in candidates:
        groups.setdefault(_Group(item.variant, item.group), []).append(item)
    return groups
