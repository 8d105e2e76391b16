"""`Driver`: runs jobs through the graph and settles them. One in each ingress, one in the janitor.

A job is driven by whoever holds the lease on its row. The driver claims jobs, keeps their leases
alive while they run and settles them; a driver that dies lets its leases run out, and another one
starts these jobs again. Running a job twice is harmless: its seed and its output names were fixed
when it was accepted, and only the holder of the lease may settle it.
"""

import asyncio
import contextlib
import contextvars
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterator
from functools import partial
from typing import TypeVar

import structlog

from serve_app import errors
from serve_app.config import JobsConfig
from serve_app.failure import to_failure
from serve_app.fairness import Places
from serve_app.jobs.eta import EtaModel, Work, plain_work
from serve_app.jobs.graph import Graph
from serve_app.jobs.protocol import JobStore, Lease
from serve_app.jobs.watch import Watch
from serve_app.telemetry import tally, tracing
from serve_app.types import Job, JobFailure, JobResult

__all__ = ["Add", "Driver", "WebhookBody"]

_log = structlog.get_logger()
_RENEWALS_PER_LEASE = 3  # two may fail before the lease is lost

_BROKEN = to_failure(errors.GenerationFailed())
_CANCELLED = to_failure(errors.Cancelled())

T = TypeVar("T")
WebhookBody = Callable[[Job, JobResult | JobFailure], Coroutine[None, None, str]]
Add = Callable[[Lease | None], Coroutine[None, None, Job]]
"""Adds a job to the store, held by the lease if there is one."""


class Driver:
    """Drives up to `jobs.max_driven` jobs at a time on the running event loop, and guests."""

    def __init__(
        self,
        store: JobStore,
        graph: Graph,
        config: JobsConfig,
        webhook_body: WebhookBody,
        work: Work = plain_work,
    ) -> None:
        self.owner = f"driver-{uuid.uuid4()}"
        self.eta = EtaModel(config.first_eta_s, config.max_driven, work)
        self._store = store
        self._graph = graph
        self._config = config
        self._webhook_body = webhook_body
        self._running: dict[int, asyncio.Task[None]] = {}
        self._jobs: dict[int, Job] = {}
        self._loops: list[asyncio.Task[None]] = []
        self._places = Places(config.max_driven, config.max_driven_guests)
        self._promised = Counter[str]()  # places of jobs that are being accepted or claimed
        self._watch = Watch(store)
        self._wake = asyncio.Event()

    def start(self) -> None:
        """Begin to claim due jobs, to renew leases and to watch jobs that others drive."""
        loops = (self._claim_for_ever(), self._renew_for_ever(), self._watch_for_ever())
        self._loops = [_detached(loop) for loop in loops]

    async def accept(self, add: Add, owner: str, *, is_new: bool = True) -> Job:
        """Add a job and drive it; if there is no place for its owner it waits in the queue.

        is_new: `add` cannot give a job that was there before, whose lease others may hold.

        Raises what `add` does.
        """
        if not is_new or not self._has_room(owner):
            job = await add(None)
            self._wake.set()
            return job
        with self._promise(1, owner):
            job = await add(Lease(self.owner, self._config.lease_s))
            self._run(job)
        return job

    def drives(self, job_id: int) -> bool:
        """Whether the job is at work here."""
        return job_id in self._running

    async def wait(self, job_id: int, timeout_s: float) -> None:
        """Return when a job may have ended, here or elsewhere, or after the time."""
        await self._watch.wait(job_id, timeout_s)

    def stop(self, job_ids: Collection[int]) -> None:
        """Stop the work on jobs that are settled already or not ours any more."""
        for job_id in job_ids:
            if task := self._running.get(job_id):
                task.cancel()

    async def cancel(self, job: Job) -> None:
        """Settle an open job as cancelled, whoever drives it, and stop the work on it here.

        Its webhook is told, as of any other end. A final job stays as it is.
        """
        body: str | None = None
        if job.request.webhook and not job.state.is_final:
            body = await self._webhook_body(job, _CANCELLED)
        await self._store.cancel(job.id, body)
        self.stop([job.id])

    def check_health(self) -> None:
        """Raise RuntimeError when a loop has ended: a bug, and nobody would drive jobs here."""
        for task in self._loops:
            if task.done():
                raise RuntimeError("a loop of the driver has ended")

    async def drain(self, limit_s: float) -> None:
        """Claim no more jobs; return when those at work have ended, or after the time."""
        for claiming in self._loops[:1]:
            claiming.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self._running:
                    await asyncio.wait(self._running.values())

    async def close(self) -> None:
        """Stop all work and give the jobs back, so that another driver goes on at once."""
        tasks = [*self._loops, *self._running.values()]
        held = list(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if held:
            await self._store.release(self.owner, held)

    async def _claim_for_ever(self) -> None:
        """Look for due jobs; the longer nothing is at work here, the less often.

        Jobs of other drivers may wait then, but no longer than these have to renew a lease.
        """
        wait_s = self._config.poll_s
        longest_s = max(self._config.poll_s, self._config.lease_s / _RENEWALS_PER_LEASE)
        while True:
            self._wake.clear()
            with _surviving("claim_failed"):
                await self._claim()
            wait_s = self._config.poll_s if self._running else min(2 * wait_s, longest_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s * _jitter()):
                    await self._wake.wait()

    async def _claim(self) -> None:
        limit = self._num_free()
        if limit <= 0:
            return
        with self._promise(limit):
            for job in await self._store.claim(self.owner, self._config.lease_s, limit):
                if job.id not in self._running:  # else our own lease had run out, and now has not
                    if job.attempts > 1:  # retried, or its driver is gone
                        _log.warning("job_run_again", **_named(job), attempts=job.attempts)
                    self._run(job)

    def _num_free(self) -> int:
        return self._places.limit - len(self._running) - self._promised.total()

    def _has_room(self, owner: str) -> bool:
        """Whether one more of an owner may be driven, whose weight nobody knows yet."""
        if self._num_free() > 0:
            return True
        held, weights = self._promised.copy(), {owner: 1.0} | dict.fromkeys(self._promised, 1.0)
        for job in self._jobs.values():
            stake = job.stake
            held[stake.owner] += 1
            weights[stake.owner] = max(weights.get(stake.owner, 0.0), stake.pull)
        return self._places.has_room(owner, held, weights)

    @contextlib.contextmanager
    def _promise(self, places: int, owner: str = "") -> Iterator[None]:
        """Keep places for jobs that are still to come out of the store."""
        self._promised[owner] += places
        try:
            yield
        finally:
            self._promised[owner] -= places
            self._promised = +self._promised  # an owner without any is none

    def _run(self, job: Job) -> None:
        task = _detached(self._drive(job))
        self._running[job.id] = task
        self._jobs[job.id] = job
        # Not in the task: one that is cancelled before its first step runs no line of it.
        task.add_done_callback(lambda _: self._forget(job.id))

    def _forget(self, job_id: int) -> None:
        is_first_free = self._num_free() == 0
        del self._running[job_id], self._jobs[job_id]
        self._watch.wake([job_id])
        if is_first_free:  # else no job waits for a place
            self._wake.set()

    async def _renew_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._config.lease_s / _RENEWALS_PER_LEASE)
            with _surviving("renew_failed"):
                await self._renew()

    async def _watch_for_ever(self) -> None:
        while True:
            with _surviving("watch_failed"):
                await self._watch.look()

    async def _renew(self) -> None:
        """Extend the leases, then learn for the next time how far the jobs are."""
        progress = {job_id: job.progress for job_id, job in self._jobs.items()}
        if not progress:
            return
        held = await self._store.renew(self.owner, self._config.lease_s, progress)
        self.stop(progress.keys() - held)
        models = {job.request.spec.model_id for job in self._jobs.values()}
        for live in await asyncio.gather(*map(self._graph.progress, models)):
            for job_id in live.keys() & self._jobs.keys():
                self._jobs[job_id] = self._jobs[job_id].model_copy(
                    update={"progress": live[job_id]}
                )

    async def _drive(self, job: Job) -> None:
        caller = tracing.carried(job.request.traceparent)
        structlog.contextvars.bind_contextvars(**_named(job), **caller)
        loop = asyncio.get_running_loop()
        started = loop.time()
        outcome = await self._attempt(job)
        if outcome is None:
            return
        if isinstance(outcome, JobResult):
            with _surviving("observe_failed"):
                self.eta.observe(job.request.spec, loop.time() - started - outcome.load_s)
        try:
            await self._settle(job, outcome)
        except Exception:
            # A bug, or a result that the database refuses: the job must not be run for ever.
            _log.exception("settle_broke")
            await self._persist(partial(self._store.fail, self.owner, job.id, _BROKEN))

    async def _attempt(self, job: Job) -> JobResult | JobFailure | None:
        """Run a job once; None means that it went back to the queue."""
        if job.attempts > self._config.max_attempts:  # each run took its driver with it
            _log.error("job_given_up", attempts=job.attempts)
            return _BROKEN
        try:
            with tracing.span("job", attempt=job.attempts):
                async with asyncio.timeout(self._config.timeout_s):
                    return await self._graph.run(job)
        except TimeoutError:
            # The time holds the wait for a free replica too, so the job may not be to blame.
            error: errors.DreamserveError = errors.ReplicaLost("jobs.timeout_s passed")
        except errors.DreamserveError as exc:
            error = exc
        except Exception:
            _log.exception("job_broke")
            return _BROKEN
        if not self._is_worth_retrying(job, error):
            _log.info("job_failed", code=error.code, reason=str(error), attempts=job.attempts)
            return to_failure(error)
        delay_s = self._retry_delay_s(job, error)
        told = {"code": error.code, "reason": str(error)}
        _log.warning("job_retried", **told, attempts=job.attempts, delay_s=delay_s)
        give_back = partial(
            self._store.release, self.owner, [job.id], delay_s, refund=error.is_outage
        )
        await self._persist(give_back)
        asyncio.get_running_loop().call_later(delay_s, self._wake.set)
        return None

    def _is_worth_retrying(self, job: Job, error: errors.DreamserveError) -> bool:
        if error.is_outage:
            return time.time() - job.created_at < self._config.give_up_s
        return error.retryable and job.attempts < self._config.max_attempts

    def _retry_delay_s(self, job: Job, error: errors.DreamserveError) -> float:
        if error.is_outage:
            return self._config.outage_delay_s * _jitter()
        if job.attempts <= 1:
            return 0.0  # most lost replicas have a living sibling
        doubled_s = self._config.retry_delay_s * 2.0 ** min(job.attempts - 2, 16)
        return min(doubled_s, self._config.max_retry_delay_s) * _jitter()

    async def _settle(self, job: Job, outcome: JobResult | JobFailure) -> None:
        body: str | None = None
        if job.request.webhook:  # its links may need the object store, which may be down
            body = await self._persist(partial(self._webhook_body, job, outcome))
        if isinstance(outcome, JobResult):
            write = partial(self._store.succeed, self.owner, job.id, outcome, body)
        else:
            write = partial(self._store.fail, self.owner, job.id, outcome, body)
        with tracing.span("settle"):
            settled = await self._persist(write)
        if settled and isinstance(outcome, JobFailure):
            tally.ERRORS.add(outcome.code, tally.JOB, job.request.key_id)
        _log.info("job_settled" if settled else "job_settled_elsewhere")

    async def _persist(self, write: Callable[[], Coroutine[None, None, T]]) -> T:
        """Repeat a write while a store is down: the work is done, the word is missing."""
        delay_s = 0.1
        while True:
            try:
                return await write()
            except (errors.JobStoreUnavailable, errors.StorageUnavailable) as exc:
                _log.warning("settle_delayed", reason=str(exc), delay_s=delay_s)
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, self._config.max_retry_delay_s)


@contextlib.contextmanager
def _surviving(event: str) -> Iterator[None]:
    """Keep a loop alive: what fails now, or for one job, must not end it for all."""
    try:
        yield
    except errors.JobStoreUnavailable as exc:
        _log.warning(event, reason=str(exc))
    except Exception:
        _log.exception(event)


def _named(job: Job) -> dict[str, str | int]:
    """Return what log lines about a job carry."""
    spec = job.request.spec
    return {"call_id": job.request.call_id, "job_id": job.id, "model_id": spec.model_id}


def _jitter() -> float:
    """A factor that keeps drivers and retries from marching in step."""
    return random.uniform(0.5, 1.0)


def _detached(coroutine: Coroutine[None, None, None]) -> asyncio.Task[None]:
    """Start a task outside the caller's context.

    Ray Serve cancels the calls made in the context of an HTTP request together with it; a job
    outlives the request that brought it.
    """
    return asyncio.create_task(coroutine, context=contextvars.Context())
