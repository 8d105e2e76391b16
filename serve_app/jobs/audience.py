"""`Audience`: who watches which jobs; one question to each of their models serves all.

Jobs may be driven by other processes: the replicas that paint are asked, every `events.look_s`, for
the jobs that are watched here and for no others. While nobody watches nobody is asked.
"""

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace

import structlog

from serve_app import errors
from serve_app.config import EventsConfig
from serve_app.jobs.graph import Graph
from serve_app.jobs.queue import Queue
from serve_app.types import Job, Sight

__all__ = ["Audience", "Seat"]

_log = structlog.get_logger()
_FULL_S = 10.0  # until one of the streams may have ended


@dataclass(slots=True, eq=False)
class _Watched:
    """One job. sight: newest, with the newest preview of all; none: it was not seen at work."""

    job: Job
    seats: "set[Seat]" = field(default_factory=set)
    sight: Sight | None = None


@dataclass(slots=True, eq=False)
class Seat:
    """One stream's place. news: set when there is something to look at."""

    watched: _Watched
    has_previews: bool
    news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def sight(self) -> Sight | None:
        """What was last seen of the job at work."""
        return self.watched.sight


class Audience:
    """One per ingress.

    Args:
        graph: who knows how far jobs are.
        queue: hears which jobs are at work.
        config: limits.
        tells_keys_apart: whether each key has a share of the places.
    """

    def __init__(
        self, graph: Graph, queue: Queue, config: EventsConfig, *, tells_keys_apart: bool
    ) -> None:
        self._graph = graph
        self._queue = queue
        self._config = config
        self._tells_keys_apart = tells_keys_apart
        self._watched: dict[int, _Watched] = {}
        self._taken: Counter[str] = Counter()  # seats by key
        self._is_wanted = asyncio.Event()
        self.refused = 0  # streams, since the start

    @property
    def num_streams(self) -> int:
        """Streams that are open."""
        return self._taken.total()

    @contextlib.contextmanager
    def seat(self, job: Job, *, has_previews: bool) -> Iterator[Seat]:
        """Watch a job for the time of the block.

        Of one whose pictures are to be checked there are no previews: nothing unchecked leaves.

        Raises:
            errors.Overloaded: all places are taken.
            errors.RateLimited: all places of the job's key are.
        """
        key_id = job.request.key_id
        self._check_room(key_id)
        watched = self._watched.setdefault(job.id, _Watched(job))
        seat = Seat(watched, has_previews and job.request.safety is None)
        watched.seats.add(seat)
        self._taken[key_id] += 1
        self._is_wanted.set()
        try:
            yield seat
        finally:
            self._taken[key_id] -= 1
            self._taken += Counter()  # drops the keys that have none
            watched.seats.discard(seat)
            if not watched.seats:
                del self._watched[job.id]

    def _check_room(self, key_id: str) -> None:
        is_full = self.num_streams >= self._config.max_streams
        of_key, most = self._taken[key_id], self._config.max_streams_per_key
        if is_full or (self._tells_keys_apart and of_key >= most):
            self.refused += 1
            raise errors.Overloaded(_FULL_S) if is_full else errors.RateLimited(_FULL_S)

    async def run(self) -> None:
        """Look until cancelled; sleep while nobody watches."""
        while True:
            if not self._watched:
                self._is_wanted.clear()
                await self._is_wanted.wait()
            await self.look()
            await asyncio.sleep(self._config.look_s)

    async def look(self) -> None:
        """Ask for all that is watched, and wake whom it concerns. Never raises."""
        by_model: dict[str, list[_Watched]] = defaultdict(list)
        for watched in self._watched.values():
            by_model[watched.job.request.spec.model_id].append(watched)
        try:
            await asyncio.gather(*(self._ask(*item) for item in by_model.items()))
        except Exception:  # a bug here must not end the looks
            _log.exception("look_failed")

    async def _ask(self, model_id: str, all_watched: Collection[_Watched]) -> None:
        newest = {watched.job.id: _newest(watched) for watched in all_watched}
        sights = await self._graph.look(model_id, newest)
        self._queue.saw(model_id, sights.keys())
        for watched in all_watched:
            before, now = watched.sight, sights.get(watched.job.id)
            if now is not None:
                watched.sight = _merged(before, now)
            if now is None or watched.sight != before:  # in the queue others may have left it
                for seat in watched.seats:
                    seat.news.set()


def _newest(watched: _Watched) -> int | None:
    """Return the step of the preview that is here; -1: there is none; None: nobody wants any."""
    if not any(seat.has_previews for seat in watched.seats):
        return None
    return -1 if watched.sight is None else watched.sight.preview_step


def _merged(before: Sight | None, now: Sight) -> Sight:
    """Keep the preview that is here, which is not sent again; of a lost run it is no more."""
    if now.preview or before is None or now.step < before.step:
        return now
    return replace(now, preview=before.preview, preview_step=before.preview_step)
