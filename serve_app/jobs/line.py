"""`Line`: jobs that wait, in the order of their turns, as the store told of them at one time.

A job that is accepted later joins it where the store would put it, so that nobody has to ask for
each one. Pure: no clock, no store.
"""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from serve_app.fairness import Stake, line_place, turn
from serve_app.types import Job

__all__ = ["Line", "Turn"]


@dataclass(frozen=True, slots=True, order=True)
class Turn:
    """When a job that waits is due, the lowest first (`fairness.turn`).

    number: grows with each job that comes. rank: among those of its owner (`fairness.line_place`).
    """

    due: float
    number: int
    job_id: int
    owner: str
    rank: int


class Line:
    """Who waits, and how many jobs each owner has at work."""

    def __init__(self, turns: Iterable[Turn] = (), begun: Counter[str] | None = None) -> None:
        self._turns = sorted(turns)
        self._by_id = {one.job_id: one for one in self._turns}
        self._begun = Counter[str]() if begun is None else begun

    @property
    def num_begun(self) -> int:
        """How many jobs are at work."""
        return self._begun.total()

    @property
    def job_ids(self) -> list[int]:
        """Those that wait, the next one first."""
        return [one.job_id for one in self._turns]

    def ahead_of(self, job_id: int) -> list[int] | None:
        """Return the jobs that wait and are due before this one; None: it does not wait."""
        mine = self._by_id.get(job_id)
        if mine is None:
            return None
        return [one.job_id for one in self._turns[: bisect_left(self._turns, mine)]]

    def join(self, job: Job) -> None:
        """Add a job that waits, accepted after all that are there, unless the line knows it.

        Jobs of its owner that it goes ahead of keep the turns that they have.
        """
        if job.id in self._by_id:
            return  # a look came between its acceptance and this
        stake = job.stake
        rank = line_place(job.number, stake)
        num_before = self._begun[stake.owner] + self._num_before(stake, rank)
        due = turn(job.number, stake, num_before)
        mine = self._by_id[job.id] = Turn(due, job.number, job.id, stake.owner, rank)
        insort(self._turns, mine)

    def begin(self, job: Job) -> None:
        """Count a job that was at work from the start."""
        self._begun[job.stake.owner] += 1

    def _num_before(self, stake: Stake, rank: int) -> int:
        return sum(one.owner == stake.owner and one.rank <= rank for one in self._turns)
