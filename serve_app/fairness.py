"""Who is next when several want more than there is. Pure: no clock, no thread, no torch.

`VirtualTime` is start-time fair queueing (Goyal, Vin, Cheng: ACM SIGCOMM 1996). Each owner has a
*tag*, the cost of what it got divided by its weight; the lowest tag is next. An owner that asked
for nothing starts where the others are, so nobody saves up what he did not use, and nobody has to
pay for what he had while nobody else wanted it.

`Places` bounds how many are inside something at a time, and keeps some room for owners who have
less than their part. `line_place` orders the jobs of one owner; `turn` those that wait in a
store, which remembers nobody.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

__all__ = [
    "MAX_PRIORITY",
    "OVERTAKES",
    "PLAIN",
    "YOUNGER",
    "Places",
    "Stake",
    "VirtualTime",
    "line_place",
    "turn",
]

MAX_PRIORITY = 4  # steps above the common priority, 0; as many below are for anyone

OVERTAKES = 32  # jobs that came before and that one step of priority goes ahead of
YOUNGER = 100  # jobs that came later and count together as much as one more of the owner's own


@dataclass(frozen=True, slots=True)
class Stake:
    """On whose behalf work is done, and how strongly: what fairness needs to know of a job.

    owner: any name that is the same for all jobs of one API key; never the key itself. weight: of
    the owner beside others. priority: of the job; each step up counts as twice the weight.
    """

    owner: str = ""
    weight: float = 1.0
    priority: int = 0

    @property
    def pull(self) -> float:
        """The weight that the job has beside jobs of others."""
        return self.weight * 2.0**self.priority


PLAIN = Stake()
"""That of work of nobody in particular, such as warming up."""


class VirtualTime:
    """What each owner got, relative to its weight. Floats: any unit of cost."""

    def __init__(self) -> None:
        self._now = 0.0  # the largest tag that an owner had when it was served
        self._tags: dict[str, float] = {}
        self._owed: dict[str, float] = {}  # how far behind an owner was when it was left wanting

    def begin(self, owners: Collection[str]) -> None:
        """Begin a round in which these owners ask for something.

        What others got meanwhile counts as if an owner had got it too, but for what it asked for
        and was made to wait for.
        """
        tags = {owner: tag for owner, tag in self._tags.items() if tag > self._now}
        for owner in owners:
            least = self._now - self._owed.get(owner, 0.0)
            tags[owner] = max(self._tags.get(owner, least), least)
        self._tags = tags
        self._owed = {owner: owed for owner, owed in self._owed.items() if owner in owners}

    def tag(self, owner: str) -> float:
        """Return where an owner stands; the lowest is next."""
        return self._tags.get(owner, self._now)

    def tags(self) -> dict[str, float]:
        """Copy the tags, for trying out who would be next after whom."""
        return dict(self._tags)

    def spend(self, owner: str, cost: float) -> None:
        """Charge what an owner got; the cost is divided by the weight already."""
        start = self.tag(owner)
        self._now = max(self._now, start)
        self._tags[owner] = start + cost

    def end(self, left: Collection[str]) -> None:
        """End a round, in which these owners did not get all that they asked for.

        Where all got everything there was no contest, and nobody is ahead of anybody.
        """
        if not left:
            self._now = max([self._now, *self._tags.values()])
            self._owed.clear()
            return
        for owner, tag in self._tags.items():
            behind = max(0.0, self._now - tag)
            self._owed[owner] = behind if owner in left else min(behind, self._owed.get(owner, 0.0))


@dataclass(frozen=True, slots=True)
class Places:
    """How many may be inside at a time.

    limit: for all. guests: beyond it, for owners who have less than their part of the limit. So
    whoever comes while others hold all places need not wait until one of them ends.
    """

    limit: int
    guests: int = 0

    def has_room(self, owner: str, held: Mapping[str, int], weights: Mapping[str, float]) -> bool:
        """Whether one more of an owner may come in.

        held: who holds how many places. weights: of all who hold some or ask for some.
        """
        total = sum(held.values())
        if total < self.limit:
            return True
        part = self.limit * weights[owner] / sum(weights.values())
        return total < self.limit + self.guests and held.get(owner, 0) < max(1.0, part)


def line_place(number: int, stake: Stake) -> int:
    """Return the place of a job among those of its owner, the lowest first.

    A bounded number of others is overtaken, so that no job waits for ever behind more urgent ones.

    number: grows with each job that comes.
    """
    return number - OVERTAKES * stake.priority


def turn(number: int, stake: Stake, num_before: int) -> float:
    """Return when a job that waits in the store is due, the lowest first.

    Those of an owner are due one after the other, the more so the less weight he has. What waits
    for long is due in the end, however many come with little before them.

    number: grows with each job that comes. num_before: of the owner, begun or ahead in his line.
    """
    return (num_before + 1) / stake.pull + number / YOUNGER
