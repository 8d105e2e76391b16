"""`Course`: stages one after another within a time, each of which leaves a file when it ends.

A stage that fails or takes longer than its budget is told, with what it had found, and the next
one begins. So a run that is cut off still leaves figures.
"""

import gc
import json
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType

import torch
from pydantic import JsonValue

__all__ = ["Course", "Figures", "Lacking", "Stage", "Told", "markdown"]


class Lacking(Exception):
    """What a stage needs is not there; its text says what."""


class _OverBudget(BaseException):
    """The time of a stage is over; no Exception, so no stage takes it for a failure of its own."""


@dataclass(slots=True)
class Figures:
    """What a stage has found so far. table: rows of one or more columns. facts: single figures."""

    table: list[dict[str, JsonValue]] = field(default_factory=list)
    facts: dict[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stage:
    """One question. budget_s: seconds that its answer may take."""

    name: str
    budget_s: float
    measure: Callable[[Figures], None]


@dataclass(frozen=True, slots=True)
class Told:
    """A stage that has ended. outcome: done, cut, lacking or failed, and why."""

    stage: str
    outcome: str
    why: str
    seconds: float
    figures: Figures


class Course:
    """Runs stages.

    Args:
        folder: for a JSON file per stage.
        limit_s: of the whole; stages that begin later are cut at once.
    """

    def __init__(self, folder: Path, limit_s: float) -> None:
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._ends_at = time.monotonic() + limit_s

    def run(self, stages: Sequence[Stage]) -> Iterator[Told]:
        """Run stages in their order, and tell each."""
        for number, stage in enumerate(stages):
            told = self._run(stage)
            name = f"{number:02}-{stage.name.replace(' ', '-')}.json"
            (self._folder / name).write_text(json.dumps(asdict(told), indent=1))
            yield told

    def _run(self, stage: Stage) -> Told:
        figures, began = Figures(), time.monotonic()
        budget_s = min(stage.budget_s, self._ends_at - began)
        outcome, why = "done", ""
        try:
            with _within(budget_s):
                stage.measure(figures)
        except _OverBudget:
            outcome, why = "cut", f"after {max(0, budget_s):.0f} s"
        except Lacking as exc:
            outcome, why = "lacking", str(exc)
        except Exception as exc:  # whatever it is, the next stage may do better
            traceback.print_exc()
            outcome, why = "failed", f"{type(exc).__name__}: {str(exc).splitlines()[:1]}"
        _let_go()
        return Told(stage.name, outcome, why, round(time.monotonic() - began, 1), figures)


@contextmanager
def _within(budget_s: float) -> Iterator[None]:
    """Raise _OverBudget in this thread, the main one, once the time is over."""
    if budget_s <= 0:
        raise _OverBudget

    def end(_signal: int, _frame: FrameType | None) -> None:
        raise _OverBudget

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, budget_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _let_go() -> None:
    """Give the memory of a stage back, compiled graphs too."""
    torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def markdown(told: Told) -> Iterator[str]:
    """Write what was found as the lines of a page."""
    why = f": {told.why}" if told.why else ""
    yield f"## {told.stage} ({told.outcome}{why}; {told.seconds} s)"
    if told.figures.table:
        names = list(dict.fromkeys(name for row in told.figures.table for name in row))
        yield from _table(names, ([row.get(name) for name in names] for row in told.figures.table))
    if told.figures.facts:
        yield from _table(["figure", "value"], ([*fact] for fact in told.figures.facts.items()))


def _table(
    names: Sequence[str], rows: Iterator[Sequence[JsonValue]] | Iterator[list[JsonValue]]
) -> Iterator[str]:
    yield ""
    yield f"| {' | '.join(names)} |"
    yield "|" + "---|" * len(names)
    for row in rows:
        yield f"| {' | '.join(_cell(value) for value in row)} |"
    yield ""


def _cell(value: JsonValue) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping | list):
        return json.dumps(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
