"""`Writer`: the one thread that writes to SQLite. What waits for it is committed together.

A commit that survives a power cut waits for the disk, and SQLite has one writer at a time. What
came while it waited shares the next commit, so that a slow disk costs latency and not throughput.
"""

import contextvars
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from sqlalchemy import Connection

from serve_app.database.faults import translated

__all__ = ["Transaction", "Writer"]

Work = Callable[[Connection], Any]


class Transaction(Protocol):
    """Opens a transaction that is committed at the end of its block."""

    def __call__(self, *, is_durable: bool) -> AbstractContextManager[Connection]:
        """Open it; is_durable: survive a power cut."""
        ...


@dataclass(slots=True)
class _Turn:
    """One caller's work, and the outcome that it gets once that is committed."""

    work: Work
    is_durable: bool
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    future: "Future[Any]" = field(default_factory=Future)
    result: object = None
    error: BaseException | None = None

    def run(self, connection: Connection) -> None:
        self.result = self.context.run(self.work, connection)

    def settle(self) -> None:
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


class Writer:
    """Writes in the order of the calls, up to `most` at a time."""

    def __init__(self, transaction: Transaction, most: int) -> None:
        self._transaction = transaction
        self._most = most
        self._waiting: deque[_Turn] = deque()
        self._thread = ThreadPoolExecutor(1, "writer")

    def submit(self, work: Work, *, is_durable: bool) -> "Future[Any]":
        """Queue work for a transaction; what it raises undoes it, and only it.

        Raises:
            RuntimeError: the writer is closed.
        """
        turn = _Turn(work, is_durable)
        self._waiting.append(turn)
        self._thread.submit(self._write)
        return turn.future

    def close(self) -> None:
        """Finish what was submitted; blocks."""
        self._thread.shutdown()

    def _write(self) -> None:
        """Write what waits; whoever's turn an earlier call took along finds nothing to do."""
        turns: list[_Turn] = []
        while self._waiting and len(turns) < self._most:
            turn = self._waiting.popleft()
            if turn.future.set_running_or_notify_cancel():
                turns.append(turn)
        if not turns:
            return
        try:
            with self._transaction(is_durable=any(turn.is_durable for turn in turns)) as connection:
                if len(turns) == 1:
                    turns[0].run(connection)
                else:
                    _run_each(turns, connection)
        except BaseException as exc:  # nothing of it is in the database
            for turn in turns:
                turn.error = turn.error or exc
        for turn in turns:
            turn.settle()


def _run_each(turns: list[_Turn], connection: Connection) -> None:
    """Run turns one after the other; one that fails leaves the others as they are."""
    for turn in turns:
        savepoint = connection.begin_nested()
        try:
            with translated():
                turn.run(connection)
        except Exception as exc:  # its caller's
            savepoint.rollback()
            turn.error = exc
        else:
            savepoint.commit()
