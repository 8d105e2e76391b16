"""`ModelCache`: the models of one replica, loaded when asked for, within a budget of memory.

A `Loader` knows what the models are, the `Ledger` who may come and who has to leave. This module
carries the decisions out on the event loop: callers wait in futures, loads and unloads run in tasks
of their own, so that a caller who leaves takes nothing away from the others.
"""

import asyncio
import contextvars
import math
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import structlog

from serve_app import errors
from serve_app.background import Background
from serve_app.config import PoolConfig
from serve_app.replica.ledger import Ledger, LedgerRules
from serve_app.replica.load_times import LoadTimes

__all__ = ["CacheSnapshot", "Loader", "ModelCache", "Occupancy"]

_log = structlog.get_logger()
K = TypeVar("K", bound=Hashable)
K_contra = TypeVar("K_contra", bound=Hashable, contravariant=True)
T = TypeVar("T")


class Loader(Protocol[K_contra, T]):
    """Where models come from and go to."""

    async def estimate_bytes(self, key: K_contra) -> int:
        """Memory that a model will take, if it was never loaded. May raise like `load`."""
        ...

    async def load(self, key: K_contra) -> T:
        """Load a model. Whatever it raises fails everybody who waits for the model."""
        ...

    def measure_bytes(self, item: T) -> int | None:
        """Memory that a loaded model takes; None: as estimated."""
        ...

    async def unload(self, key: K_contra, item: T) -> None:
        """Stop a model that nobody uses; the caller then drops its last reference."""
        ...

    async def tidy(self, key: K_contra) -> None:
        """Free the memory that nothing refers to any more, after `unload`."""
        ...


@dataclass(frozen=True, slots=True)
class Occupancy(Generic[K]):
    """What callers of the replica should know (`placement.ReplicaView`).

    loading: or queued for it. calls: at work or waiting, by model. used: share of the budget.
    """

    held: list[K]
    loading: list[K]
    calls: dict[K, int]
    used: float


@dataclass(frozen=True, slots=True)
class CacheSnapshot:
    """State and totals of one cache.

    hits: uses that found the model in memory and open; waits: the others. load_seconds: of all
    loads that ended well. waiting: callers.
    """

    hits: int
    waits: int
    loads: int
    load_failures: int
    load_seconds: float
    evictions: int
    held: int
    used_bytes: int
    waiting: int


class ModelCache(Generic[K, T]):
    """Use it from one event loop."""

    def __init__(self, loader: Loader[K, T], config: PoolConfig) -> None:
        self._loader = loader
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._ledger: Ledger[K] = Ledger(
            LedgerRules(config.memory_bytes, config.max_loads, config.turn_s, config.idle_s)
        )
        self._items: dict[K, T] = {}
        self._callers: dict[K, list[asyncio.Future[T]]] = defaultdict(list)
        self._failures: dict[K, tuple[float, str]] = {}  # until when, and why
        self._load_times: LoadTimes[K] = LoadTimes()
        self._began_at: dict[K, float] = {}
        self._work = Background()
        self._alarm: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._counters: Counter[str] = Counter()
        self._load_seconds = 0.0

    @asynccontextmanager
    async def use(self, key: K) -> AsyncIterator[T]:
        """Hold a model in memory for the time of the block, loading it first if need be.

        Raises:
            errors.Overloaded: too many calls use this model or wait for it.
            errors.ModelLoadFailed: it could not be loaded, now or a moment ago.
            errors.ReplicaLost: the cache is closed.
        """
        item = await self._acquire(key)
        try:
            yield item
        finally:
            self._ledger.release(key, self._loop.time())
            self._settle()

    def retire(self, key: K) -> None:
        """Mark a model to be loaded again when it is next requested; current users finish."""
        self._ledger.retire(key)
        self._settle()

    def items(self) -> dict[K, T]:
        """Models in memory that can be used now."""
        return {key: self._items[key] for key in self._ledger.held}

    async def load_s(self, key: K) -> float:
        """Seconds until a model could be used, the loads before it included; a rough estimate.

        Raises:
            errors.ModelLoadFailed: nothing is known of its files.
        """
        if key in self._ledger.held:
            return 0.0
        total_s = 0.0
        for other in (*self._ledger.loading, *self._ledger.queued):
            elapsed_s = self._loop.time() - self._began_at.get(other, self._loop.time())
            expected_s = self._load_times.expect_s(other, self._ledger.size(other))
            total_s += max(0.0, expected_s - elapsed_s)
            if other == key:
                return total_s
        size = self._ledger.size(key) or await self._estimate(key)
        return total_s + self._load_times.expect_s(key, size)

    def occupancy(self) -> Occupancy[K]:
        """Return what is here and who wants what."""
        return Occupancy(
            held=self._ledger.held,
            loading=[*self._ledger.loading, *self._ledger.queued],
            calls=self._ledger.calls(),
            used=round(min(1.0, self._ledger.used_bytes / self._config.memory_bytes), 2),
        )

    def snapshot(self) -> CacheSnapshot:
        """Count what is held and was done."""
        return CacheSnapshot(
            hits=self._counters["hits"],
            waits=self._counters["waits"],
            loads=self._counters["loads"],
            load_failures=self._counters["load_failures"],
            load_seconds=self._load_seconds,
            evictions=self._counters["evictions"],
            held=len(self._ledger.held),
            used_bytes=self._ledger.used_bytes,
            waiting=sum(map(len, self._callers.values())),
        )

    async def close(self) -> None:
        """Unload everything, after the loads at work; callers who wait fail."""
        self._is_closed = True
        if self._alarm is not None:
            self._alarm.cancel()
        for key in list(self._callers):
            self._refuse_all(key, lambda: errors.ReplicaLost("the cache is closed"))
        await self._work.wait()
        for key in list(self._items):
            await self._drop(key)

    async def _acquire(self, key: K) -> T:
        self._check(key)
        size = self._ledger.size(key)
        if not size:
            size = await self._estimate(key)
            self._check(key)  # others came, or the end, while files were read
        if not self._ledger.fits(size):
            raise errors.ModelLoadFailed(f"{size} bytes do not fit {self._config.memory_bytes}")
        if self._ledger.ask(key, size):
            self._counters["hits"] += 1
            return self._items[key]
        self._counters["waits"] += 1
        caller: asyncio.Future[T] = self._loop.create_future()
        self._callers[key].append(caller)
        self._settle()
        try:
            return await caller
        except asyncio.CancelledError:
            self._leave(key, caller)
            raise

    def _check(self, key: K) -> None:
        if self._is_closed:
            raise errors.ReplicaLost("the cache is closed")
        if self._ledger.callers(key) >= self._config.max_calls_per_model:
            raise errors.Overloaded()
        until, reason = self._failures.get(key, (-math.inf, ""))
        if self._loop.time() < until:
            raise errors.ModelLoadFailed(reason)

    async def _estimate(self, key: K) -> int:
        try:
            return max(1, await self._loader.estimate_bytes(key))
        except Exception as exc:
            raise errors.ModelLoadFailed(f"{type(exc).__name__}: {exc}") from exc

    def _leave(self, key: K, caller: "asyncio.Future[T]") -> None:
        """A caller was cancelled, perhaps after it was served."""
        if caller in self._callers.get(key, ()):
            self._callers[key].remove(caller)
            self._ledger.withdraw(key)
        elif not caller.cancelled() and caller.exception() is None:
            self._ledger.release(key, self._loop.time())
        self._settle()

    def _settle(self) -> None:
        """Do what the ledger says, now and when it wants to be asked again."""
        if self._is_closed:
            return
        step = self._ledger.step(self._loop.time())
        for key in step.grants:
            self._serve(key)
        for key in step.loads:
            self._begin(self._load(key))
        for key in step.unloads:
            self._counters["evictions"] += 1
            self._begin(self._unload(key))
        if self._alarm is not None:
            self._alarm.cancel()
        is_due = math.isfinite(step.wake_at)
        self._alarm = self._loop.call_at(step.wake_at, self._settle) if is_due else None

    def _serve(self, key: K) -> None:
        for caller in self._callers.pop(key):
            if caller.cancelled():  # and its coroutine does not know yet
                self._ledger.release(key, self._loop.time())
                self._loop.call_soon(self._settle)
            else:
                caller.set_result(self._items[key])

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        """Run apart from any caller and its context: Serve cancels what belongs to a request."""
        self._work.start(work, contextvars.Context())

    async def _load(self, key: K) -> None:
        began_at = self._began_at[key] = self._loop.time()
        try:
            item = await self._loader.load(key)
            size = self._loader.measure_bytes(item) or self._ledger.size(key)
            if not self._ledger.fits(size):
                self._items[key] = item
                del item
                await self._drop(key)
                raise errors.ModelLoadFailed(f"{size} bytes are more than the whole budget")
        except Exception as exc:
            _log.exception("model_load_failed", model=str(key))
            self._fail(key, f"{type(exc).__name__}: {exc}")
        else:
            seconds = self._loop.time() - began_at
            _log.info("model_loaded", model=str(key), num_bytes=size, seconds=round(seconds, 3))
            self._counters["loads"] += 1
            self._load_seconds += seconds
            self._load_times.observe(key, size, seconds)
            self._items[key] = item
            self._ledger.loaded(key, size, self._loop.time())
        finally:
            del self._began_at[key]
        self._settle()

    def _fail(self, key: K, reason: str) -> None:
        self._counters["load_failures"] += 1
        self._failures[key] = (self._loop.time() + self._config.retry_load_s, reason)
        self._refuse_all(key, lambda: errors.ModelLoadFailed(reason))
        self._ledger.failed(key)

    def _refuse_all(self, key: K, make_error: Callable[[], errors.DreamserveError]) -> None:
        for caller in self._callers.pop(key, ()):
            if not caller.done():
                caller.set_exception(make_error())

    async def _unload(self, key: K) -> None:
        await self._drop(key)
        _log.info("model_unloaded", model=str(key))
        self._ledger.unloaded(key)
        self._settle()

    async def _drop(self, key: K) -> None:
        try:
            await self._loader.unload(key, self._items.pop(key))
            await self._loader.tidy(key)
        except Exception:
            _log.exception("model_unload_failed", model=str(key))
