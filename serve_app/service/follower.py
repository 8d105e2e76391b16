"""`Follower`: what is new of one job, moment by moment, until it has ended."""

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from serve_app import errors
from serve_app.config import EventsConfig
from serve_app.jobs.audience import Audience, Seat
from serve_app.jobs.moment import (
    EndMoment,
    Mark,
    Moment,
    PreviewMoment,
    QueuedMoment,
    StartedMoment,
    StepMoment,
)
from serve_app.jobs.queue import Queue
from serve_app.types import Job, Sight

__all__ = ["Follower"]


class Follower:
    """One per ingress.

    Args:
        audience: tells of jobs at work.
        queue: tells the places of others.
        config: times.
        wait: returns a job when it is final, or as it is after so many seconds.
        eta_s: seconds until a job is done.
    """

    def __init__(
        self,
        audience: Audience,
        queue: Queue,
        config: EventsConfig,
        wait: Callable[[int, float], Awaitable[Job]],
        eta_s: Callable[[Job], Awaitable[float]],
    ) -> None:
        self._audience = audience
        self._queue = queue
        self._config = config
        self._wait = wait
        self._eta_s = eta_s

    async def follow(
        self, job: Job, mark: Mark, *, has_previews: bool
    ) -> AsyncGenerator[Moment | None, None]:
        """Yield what the client has not seen, and None whenever it has heard nothing for long.

        Something comes at once. What was skipped between two looks is not told; the end always is,
        unless the stream has become too old before.

        Raises:
            errors.Overloaded: there are too many streams.
            errors.RateLimited: the key has too many.
        """
        if job.state.is_final:
            yield EndMoment(replace(mark, has_ended=True), job)
            return
        clock, told_at = asyncio.get_running_loop().time, -math.inf
        with self._audience.seat(job, has_previews=has_previews) as seat:
            end = asyncio.ensure_future(self._wait(job.id, self._config.max_stream_s))
            try:
                while not end.done():
                    moments: Sequence[Moment | None] = await self._news(job, seat, mark)
                    if not moments and clock() - told_at >= self._config.heartbeat_s:
                        moments = [None]
                    for moment in moments:
                        yield moment
                        mark = mark if moment is None else moment.mark
                        told_at = clock()
                    # News may be none for this client, so they leave the time of the next word.
                    await _news_or_end(seat, end, told_at + self._config.heartbeat_s - clock())
                ended = end.result()
            finally:
                end.cancel()
        if ended.state.is_final:
            yield EndMoment(replace(mark, has_ended=True), ended)

    async def _news(self, job: Job, seat: Seat, mark: Mark) -> list[Moment]:
        sight = seat.sight
        if sight is not None:
            return _seen(sight, mark, has_previews=seat.has_previews)
        if mark.run:
            return []  # it was at work, and is being stored, or waits to be run again
        try:
            place = await self._queue.place(job)
            if place in (0, mark.place):
                return []
            eta_s = await self._eta_s(job)
        except errors.JobStoreUnavailable:
            return []  # the next look may know
        return [QueuedMoment(replace(mark, place=place), place, eta_s)]


async def _news_or_end(seat: Seat, end: "asyncio.Future[Job]", limit_s: float) -> None:
    """Return when there is something to look at, or after the time."""
    news: asyncio.Future[Any] = asyncio.ensure_future(seat.news.wait())
    both: set[asyncio.Future[Any]] = {news, end}
    try:
        await asyncio.wait(both, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        news.cancel()
    seat.news.clear()


def _seen(sight: Sight, mark: Mark, *, has_previews: bool) -> list[Moment]:
    moments: list[Moment] = []
    if not mark.run or sight.step < mark.step:
        mark = Mark(run=mark.run + 1)
        moments.append(StartedMoment(mark))
    if sight.step > mark.step:
        mark = replace(mark, step=sight.step)
        moments.append(StepMoment(mark, sight.step, sight.steps))
    if has_previews and sight.preview and sight.preview_step >= mark.preview:
        mark = replace(mark, preview=sight.preview_step + 1)
        moments.append(PreviewMoment(mark, sight.preview, sight.preview_step, sight.steps))
    return moments
