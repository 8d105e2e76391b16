"""What a stream of events tells of a job, and the marks by which a client goes on where it was."""

import re
from dataclasses import dataclass
from typing import Self

from serve_app.types import Job

__all__ = [
    "EndMoment",
    "Mark",
    "Moment",
    "PreviewMoment",
    "QueuedMoment",
    "StartedMoment",
    "StepMoment",
]

_MARK = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})\.(\d{1,9})\.([01])", re.ASCII)


@dataclass(frozen=True, slots=True)
class Mark:
    """How much of a job a client has seen, all in all: the `id` of an event.

    run: how often the job was begun; 0: not yet. place: in the queue. step: last one told of this
    run. preview: step of the last picture plus 1; 0: none.
    """

    run: int = 0
    place: int = 0
    step: int = 0
    preview: int = 0
    has_ended: bool = False

    def __str__(self) -> str:
        numbers = (self.run, self.place, self.step, self.preview, int(self.has_ended))
        return ".".join(map(str, numbers))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what a client sends back; whatever is none of ours counts as nothing seen."""
        found = _MARK.fullmatch(text)
        if found is None:
            return cls()
        run, place, step, preview, has_ended = map(int, found.groups())
        return cls(run, place, step, preview, bool(has_ended))


@dataclass(frozen=True, slots=True)
class Moment:
    """Something new of a job; who has seen it has seen all up to the mark."""

    mark: Mark


@dataclass(frozen=True, slots=True)
class QueuedMoment(Moment):
    """The job waits. place: 1 is next. eta_s: seconds until it is done, estimated."""

    place: int
    eta_s: float


@dataclass(frozen=True, slots=True)
class StartedMoment(Moment):
    """The job is being painted, for the first time or again after its run was lost."""


@dataclass(frozen=True, slots=True)
class StepMoment(Moment):
    """So many steps are done."""

    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class PreviewMoment(Moment):
    """What is painted so far. image: JPEG. step: when it was made, of `steps`."""

    image: bytes
    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class EndMoment(Moment):
    """The job is final."""

    job: Job
