"""`Dependencies`: which parts that a call needs answer: the database, the store, the safety check.

Load balancers ask often, and from many places: one look serves all who ask within a few seconds.
"""

import asyncio
import time
from collections.abc import Awaitable

from serve_app.jobs.graph import Graph
from serve_app.jobs.protocol import JobStore
from serve_app.storage.protocol import ObjectStore

__all__ = ["Dependencies"]

_FRESH_S = 5.0
_TIMEOUT_S = 2.0
_PROBE = "temp/probe"  # never written: a store that says so answers


class Dependencies:
    """One per process that shows or reports them."""

    def __init__(self, jobs: JobStore, files: ObjectStore, graph: Graph) -> None:
        self._jobs = jobs
        self._files = files
        self._graph = graph
        self._looking = asyncio.Lock()
        self._seen: dict[str, bool] = {}
        self._seen_at = -_FRESH_S

    async def look(self) -> dict[str, bool]:
        """Return whether each part answers, by its name; a few seconds old at most."""
        async with self._looking:
            if time.monotonic() - self._seen_at >= _FRESH_S:
                answers = await asyncio.gather(
                    _answers(self._jobs.oldest_open_s()),
                    _answers(self._files.get(_PROBE)),
                    _answers(self._graph.check_safety_runs()),
                )
                self._seen = dict(zip(("database", "storage", "safety"), answers, strict=True))
                self._seen_at = time.monotonic()
            return self._seen


async def _answers(question: Awaitable[object]) -> bool:
    """Whether there is an answer in time; what is wrong, the log of who needs it says."""
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            await question
    except Exception:
        return False
    return True
