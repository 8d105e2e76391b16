"""Runs each request's body as a strand (a greenlet) that stops at every parked call.

A strand can be switched to only on the thread that made it, so all of `Weave` runs on the engine
thread; `park` is what proxies call from inside a strand. No exception leaves a strand, so a
failing request cannot harm its neighbours.
"""

from collections.abc import Callable
from dataclasses import dataclass

from greenlet import getcurrent, greenlet

from serve_app.engine.lane import Call, forward
from serve_app.engine.planner import Candidate
from serve_app.engine.request import Outcome, Request

__all__ = ["Abandoned", "Parked", "Weave", "park"]


class Abandoned(BaseException):
    """Raised inside a strand whose client has gone; no Exception, so no pipeline catches it."""


def park(call: Call) -> object:
    """Leave a call to the engine and wait for its output; outside of a strand run it at once."""
    strand = getcurrent()
    if not isinstance(strand, _Strand):
        return forward([call], call.rows)[0]
    return strand.parent.switch(call)


class _Strand(greenlet):  # type: ignore[misc]  # greenlet has no types
    """One request's body on a stack of its own."""

    def __init__(self, request: Request) -> None:
        super().__init__()
        self.request = request

    def run(self) -> None:
        """Run the body to its end and note what it came to."""
        try:
            self.request.end(Outcome(self.request.body()))
        except Abandoned:
            self.request.future.cancel()
        except Exception as exc:
            self.request.end(Outcome(error=exc))


@dataclass(frozen=True, slots=True, eq=False)
class Parked:
    """A request that waits for the output of its call, and how the planner sees it."""

    request: Request
    call: Call
    candidate: Candidate


class Weave:
    """The strands at work and the call that each is parked at, by `Request.seq`.

    ended: requests with an outcome that their clients have not been told.
    """

    def __init__(self) -> None:
        self.parked: dict[int, Parked] = {}
        self.ended: list[Request] = []
        self._strands: dict[int, _Strand] = {}

    def start(self, request: Request) -> None:
        """Run a body until its first parked call or its end."""
        strand = _Strand(request)
        self._strands[request.seq] = strand
        self._advance(strand, strand.switch)

    def resume(self, seq: int, output: object) -> None:
        """Pass a parked call its output and run on until the next call or the end."""
        strand = self._strands[seq]
        self._advance(strand, lambda: strand.switch(output))

    def throw(self, seq: int, error: BaseException) -> None:
        """Raise an error in a parked call, which ends its request unless the body handles it."""
        strand = self._strands[seq]
        self._advance(strand, lambda: strand.throw(error))

    def _advance(self, strand: _Strand, switch: Callable[[], object]) -> None:
        seq = strand.request.seq
        self.parked.pop(seq, None)
        call = switch()
        if strand.dead:
            del self._strands[seq]
            if strand.request.outcome is not None:
                self.ended.append(strand.request)
            return
        assert isinstance(call, Call), "a strand switches back only in park()"
        self.parked[seq] = Parked(strand.request, call, _candidate(strand.request, call))


def _candidate(request: Request, call: Call) -> Candidate:
    return Candidate(
        seq=request.seq,
        variant=request.variant,
        group=call.group(request.key, request.alone),
        rows=call.rows,
        urgent=call.lane.urgent,
        rank=call.lane.rank,
        stake=request.stake,
    )
