"""`Request`: one picture in the engine, from submission to its future's result."""

import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field

from serve_app.fairness import PLAIN, Stake

__all__ = ["Outcome", "Progress", "Request", "Spent", "Times"]


@dataclass(slots=True)
class Progress:
    """Denoising steps of one request; written on the engine thread, read anywhere."""

    done: int = 0
    total: int = 0

    @property
    def share(self) -> float:
        """Share of the steps done, 0 to 1."""
        return min(1.0, self.done / self.total) if self.total else 0.0


@dataclass(slots=True)
class Spent:
    """What a request took so far, as its share of the engine's time by its rows.

    device_s: seconds. row_steps: rows of the forwards of its steps. Written on the engine thread.
    """

    device_s: float = 0.0
    row_steps: int = 0


@dataclass(slots=True)
class Times:
    """When a request came how far, by the monotonic clock; 0: it did not.

    Written on the engine thread. On a GPU a forward returns before it is done: there the end of the
    steps is when the last of them was begun.
    """

    began: float = 0.0
    steps_began: float = 0.0
    steps_ended: float = 0.0
    ended: float = 0.0

    def step(self, began: float, ended: float) -> None:
        """Count a forward of a step in."""
        self.steps_began = self.steps_began or began
        self.steps_ended = ended


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a request came to: what its body returned, or its error."""

    result: object = None
    error: BaseException | None = None


@dataclass(slots=True, eq=False)
class Request:
    """A body to be run on the engine thread, whose denoiser calls park.

    body: runs a whole stock pipeline and returns what it made; any exception is its failure.
    key: what must agree for two requests to share a forward and does not show in the tensors.
    variant: state of the shared modules (IP adapter, token merging) that the body needs.
    exclusive: share no forward.
    stake: on whose behalf it is run.
    measures: let the first denoiser call set the row cap of its size; for warming up, which is
        not counted.
    future: cancel it to cancel the request; a client may do so at any time.
    outcome: known once the request has ended, at the end of a tick handed to the future.
    """

    body: Callable[[], object]
    key: Hashable = None
    variant: Hashable = None
    exclusive: bool = False
    measures: bool = False
    stake: Stake = PLAIN
    future: "Future[object]" = field(default_factory=Future)
    spent: Spent = field(default_factory=Spent)
    times: Times = field(default_factory=Times)
    seq: int = -1
    outcome: Outcome | None = None

    @property
    def alone(self) -> int | None:
        """What keeps an exclusive request apart from all others; None: nothing does."""
        return self.seq if self.exclusive else None

    def end(self, outcome: Outcome) -> None:
        """Note what the request came to."""
        self.outcome = outcome
        if outcome.error is None:  # with an error it never came to its end
            self.times.ended = time.monotonic()

    def hand_out(self, count: Callable[[Outcome], None]) -> None:
        """Count the outcome, then set it in the future; neither where the client has cancelled."""
        assert self.outcome is not None, "only an ended request has something to tell"
        if not self.future.set_running_or_notify_cancel():
            return
        count(self.outcome)
        if self.outcome.error is not None:
            self.future.set_exception(self.outcome.error)
        else:
            self.future.set_result(self.outcome.result)
