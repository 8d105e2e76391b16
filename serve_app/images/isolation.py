"""Runs what reads foreign files in worker processes, under limits of time and memory.

Why processes: a decoder that works in C can be stopped in no other way, nor can its memory be
bounded. A worker that meets a limit or breaks, or whose caller is cancelled, is killed and replaced
at once; its neighbours notice nothing. Workers are kept, since starting one takes half a second.
They know no secret: their environment is not the parent's.
"""

import asyncio
import os
import pickle
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar, cast

import structlog

from serve_app import errors
from serve_app.config import ImagesConfig
from serve_app.fairness import PLAIN, Places, Stake
from serve_app.images.frame import LENGTH, OUT_OF_MEMORY, Said, unpack
from serve_app.turnstile import Turnstile
from serve_app.types import Picture, PreparedImages

__all__ = ["Isolation"]

_log = structlog.get_logger()
Result = TypeVar("Result", Picture, PreparedImages)

# Times the limit of one file: two of them, what is made of them, and the way there and back. A
# worker ends by itself before; this is for one that hangs.
_PATIENCE = 4
_EXIT_TIMEOUT_S = 5.0  # between the end of its output and its own, a millisecond
_START_TIMEOUT_S = 60.0  # it takes half a second, on a very busy machine ten
# Room for a common picture; with asyncio's default it arrived in many pieces, in twice the time.
_BUFFER_BYTES = 4 * 1024**2
_KEPT_BYTES = str(16 * 1024**2)
_ENVIRONMENT = {
    # One thread and one heap: what more of them would reserve counts against the limit.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    # Memory for the next picture: having it anew took a tenth of the time of a small one.
    "MALLOC_TRIM_THRESHOLD_": _KEPT_BYTES,
    "MALLOC_MMAP_THRESHOLD_": _KEPT_BYTES,
}
_GONE = (asyncio.IncompleteReadError, ConnectionError, TimeoutError, pickle.UnpicklingError)
# Why a worker was lost, by how its process ended; others crashed, or were killed from outside.
_CAUSES = {-signal.SIGALRM: "time", OUT_OF_MEMORY: "memory"}


class Isolation:
    """`images.decode_workers` workers, each with one caller at a time. One per event loop.

    workers_lost: since the start, by cause: "time" or "memory", the limits of one file;
    "cancelled", the caller left; "hung", it did not even meet a limit; "crash", all else.
    """

    def __init__(self, config: ImagesConfig) -> None:
        self.workers_lost: Counter[str] = Counter()
        self._workers = [_Worker(config, self.workers_lost) for _ in range(config.decode_workers)]
        self._line = Turnstile(Places(config.decode_workers))
        self._free: asyncio.Queue[_Worker] = asyncio.Queue()
        for worker in self._workers:
            self._free.put_nowait(worker)

    async def start(self) -> None:
        """Wait until every worker is ready; raises `errors.ReplicaLost` when one cannot start."""
        await asyncio.gather(*(worker.ready() for worker in self._workers))

    async def run(self, work: Callable[[], Result], stake: Stake = PLAIN) -> Result:
        """Call a function in a worker; cancelling the caller ends it.

        Args:
            work: can be pickled, and reads files by `images.decode`.
            stake: on whose behalf; whose owner got least so far is next.

        Raises:
            errors.InvalidImage: of the function; or reading a file took too much time or memory.
            errors.GenerationFailed: the function raised something else.
            errors.ReplicaLost: workers died before they read anything, or cannot start.
        """
        async with self._line.visit(stake):
            worker = await self._free.get()
            try:
                return await worker.run(work)
            finally:
                self._free.put_nowait(worker)

    async def aclose(self) -> None:
        """End the workers, and with them what they do; their callers get the errors of `run`.

        They also end by themselves with this process, however it ends.
        """
        for worker in self._workers:
            worker.kill()
        idle = [await self._free.get() for _ in self._workers]  # nobody hears of them any more
        for worker in idle:
            await worker.aclose()
            self._free.put_nowait(worker)


class _DiedIdle(Exception):
    """A worker read nothing: it was dead before it was asked, and nobody had seen it yet."""


class _Worker:
    """One process at a time, or one that is starting."""

    def __init__(self, config: ImagesConfig, lost: Counter[str]) -> None:
        self._config = config
        self._lost = lost
        self._process: asyncio.Task[Process] | None = None  # done when it is ready
        self._is_closed = False

    async def ready(self) -> Process:
        if self._is_closed:
            raise errors.ReplicaLost("closed")
        if self._process is None or (self._process.done() and self._process.exception()):
            self._process = asyncio.create_task(self._start())
        process = await asyncio.shield(self._process)
        if not _output(process).at_eof():
            return process
        return await asyncio.shield(self._replace(process))  # it died between two jobs

    async def run(self, work: Callable[[], Result]) -> Result:
        with suppress(_DiedIdle):
            return await self._run(work)
        with suppress(_DiedIdle):
            return await self._run(work)
        raise errors.ReplicaLost("worker of pictures")

    async def _run(self, work: Callable[[], Result]) -> Result:
        process = await self.ready()
        begun, field = time.perf_counter(), ""
        try:
            async with asyncio.timeout(_PATIENCE * self._config.decode_timeout_s):
                await _tell(process, work)
                while isinstance(said := await self._hear(process), str):
                    field = said
        except _GONE as exc:
            is_hung = isinstance(exc, TimeoutError)
            self._replace(process, "hung" if is_hung else "")
            after_s = round(time.perf_counter() - begun, 3)
            _log.warning("picture_worker_lost", field=field, after_s=after_s)
            if field:
                message = f"The {field} picture takes too much time or memory to read."
                raise errors.InvalidImage(field, message) from exc
            raise errors.ReplicaLost("hung") if is_hung else _DiedIdle from exc
        except BaseException:
            self._replace(process, "cancelled")
            raise
        if isinstance(said, errors.DreamserveError):
            raise said
        return cast("Result", said)

    def kill(self) -> None:
        """End what it does; no process takes the place of the one that ends."""
        self._is_closed = True
        if self._process is not None and self._process.done() and not self._process.exception():
            _kill(self._process.result())

    async def aclose(self) -> None:
        if self._process is not None:
            with suppress(errors.ReplicaLost):
                await _end(await self._process)

    def _replace(self, former: Process, cause: str = "") -> asyncio.Task[Process]:
        """Kill a process and start another, unless that was done already or all are to end.

        cause: why it is lost, where its end will not tell.
        """
        if cause:
            _kill(former)
        assert self._process is not None, "the former one came from it"
        is_served = self._process.done() and self._process.result() is former
        if is_served and not self._is_closed:
            self._process = asyncio.create_task(self._restart(former, cause))
        return self._process

    async def _restart(self, former: Process, cause: str) -> Process:
        """Start a process, once the memory of the former one is free."""
        if not cause:
            # It is ending by itself. Killing it now could take its code from asyncio's watcher.
            with suppress(TimeoutError):
                await asyncio.wait_for(former.wait(), _EXIT_TIMEOUT_S)
        await _end(former)
        self._lost[cause or _CAUSES.get(former.returncode or 0, "crash")] += 1
        return await self._start()

    async def _start(self) -> Process:
        config = self._config
        # What a library warns of is a client's picture, and no news.
        command = (sys.executable, "-P", "-W", "ignore", "-m", "serve_app.images.worker")
        bounds = (config.decode_memory_bytes, config.decode_timeout_s, config.decode_niceness)
        environment = _ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(sys.path)}
        process = None
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                *map(str, bounds),
                stdin=PIPE,
                stdout=PIPE,
                env=environment,
                limit=_BUFFER_BYTES,
            )
            async with asyncio.timeout(_START_TIMEOUT_S):
                await self._hear(process)
        except (OSError, *_GONE) as exc:
            if process is not None:
                await _end(process)
            _log.exception("picture_worker_did_not_start")
            raise errors.ReplicaLost(type(exc).__name__) from exc
        return process

    async def _hear(self, process: Process) -> Said:
        output = _output(process)
        (length,) = LENGTH.unpack(await output.readexactly(LENGTH.size))
        if length > self._config.decode_memory_bytes:
            raise pickle.UnpicklingError("longer than the memory of a worker")
        return unpack(await output.readexactly(length))


def _output(process: Process) -> asyncio.StreamReader:
    assert process.stdout is not None, "it was asked for"
    return process.stdout


async def _tell(process: Process, work: Callable[[], object]) -> None:
    assert process.stdin is not None, "it was asked for"
    process.stdin.write(pickle.dumps(work))
    await process.stdin.drain()


def _kill(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()


async def _end(process: Process) -> None:
    _kill(process)
    await process.communicate()  # its memory is free when this returns
