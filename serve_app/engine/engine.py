"""`Engine`: the thread that weaves requests together, tick by tick.

A tick asks the planner what to do, starts new requests, and runs one forward for the calls that
the planner chose. Requests come in through a queue and go out through their futures, at the end of
the tick in which they ended, when all that they took is counted; everything in between happens on
the engine thread, under one `torch.inference_mode()`: such modes belong to the thread, and strands
that restored one for themselves would restore each other's. Tensors made under it may be read
anywhere, but changed in place only there.
"""

import itertools
import queue
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import structlog
import torch

from serve_app import errors
from serve_app.config import EngineConfig
from serve_app.engine.lane import Call, forward
from serve_app.engine.metrics import Counters, EngineSnapshot
from serve_app.engine.planner import Candidate, Plan, Planner, Policy
from serve_app.engine.request import Outcome, Request
from serve_app.engine.row_cap_profiler import RowCapProfiler
from serve_app.engine.row_cap_store import RowCapStore
from serve_app.engine.weave import Abandoned, Parked, Weave

__all__ = ["Engine"]

_log = structlog.get_logger()
_UNSET = object()  # no variant was applied yet, or the last one failed half way


class Engine:
    """Takes requests from any thread and runs them together on its own.

    Args:
        config: limits and fairness.
        activate: brings the shared modules into the state of a variant; called on the engine
            thread before a request of another variant starts or runs a forward.
        row_cap_store: where measured row caps are kept between runs; none: nowhere.
    """

    def __init__(
        self,
        config: EngineConfig,
        activate: Callable[[Hashable], None] = lambda _: None,
        row_cap_store: RowCapStore | None = None,
    ) -> None:
        self._config = config
        self._activate = activate
        self._profiler = RowCapProfiler(config.max_rows, config.row_growth, row_cap_store)
        policy = Policy(
            max_live=config.max_live,
            max_guests=config.max_guests,
            turn_ticks=config.turn_ticks,
            turn_groups=config.turn_groups,
        )
        self._planner = Planner(policy, self._row_limit)
        self._weave = Weave()
        self._waiting: dict[int, Request] = {}
        self._variant: Hashable = _UNSET
        self._counters = Counters()
        self._numbers = itertools.count()
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._door = threading.Lock()  # no request gets in once `_close_at` is set
        self._close_at: float | None = None
        self._is_idle = False
        self._beat = self._charged_at = time.monotonic()
        self._death: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name="engine", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> "Future[object]":
        """Queue a request; its future gives the result. Cancelling the future stops the work.

        Raises:
            errors.ReplicaLost: the engine is closed or dead.
        """
        with self._door:
            if self._close_at is not None:
                raise errors.ReplicaLost("the engine is closed")
            request.seq = next(self._numbers)
            self._inbox.put(lambda: self._waiting.__setitem__(request.seq, request))
        request.future.add_done_callback(lambda _: self._told(request))
        return request.future

    def check_health(self) -> None:
        """Raise RuntimeError when the thread is dead, or at work without a tick for too long."""
        if not self._thread.is_alive():
            raise RuntimeError("the engine thread has ended") from self._death
        silent_s = time.monotonic() - self._beat
        if not self._is_idle and silent_s > self._config.stall_timeout_s:
            raise RuntimeError(f"the engine has been stuck for {silent_s:.0f} s")

    def snapshot(self) -> EngineSnapshot:
        """Count what the engine did and holds; cheap, from any thread."""
        return self._counters.snapshot(
            time.monotonic(),
            len(self._waiting),
            len(self._weave.parked),
            self._profiler.caps.table(),
        )

    def close(self, drain_s: float = 0.0) -> None:
        """Refuse new requests, finish those at hand for up to `drain_s` seconds, stop.

        Requests that are left fail with `errors.ReplicaLost`. Blocks until stopped; idempotent.
        """
        with self._door:
            self._close_at = time.monotonic() + drain_s
        self._inbox.put(lambda: None)
        self._thread.join(drain_s + self._config.stall_timeout_s)

    # From here on everything runs on the engine thread.

    def _main(self) -> None:
        try:
            with torch.inference_mode():
                while not self._should_stop():
                    self._receive()
                    self._tick()
                    self._hand_out()
        except BaseException as exc:  # whatever it is, the health check has to tell it
            self._death = exc
            _log.exception("engine_died")
        finally:
            self._abandon_all()

    def _should_stop(self) -> bool:
        if self._close_at is None:
            return False
        return not self._has_work() or time.monotonic() >= self._close_at

    def _has_work(self) -> bool:
        return bool(self._waiting or self._weave.parked or not self._inbox.empty())

    def _receive(self) -> None:
        """Take in all messages; sleep while there is nothing to do."""
        if not self._has_work():
            self._profiler.measure(self._is_quiet)
            self._is_idle = True
            message = self._inbox.get()
            self._is_idle = False
            self._charged_at = time.monotonic()
            message()
        self._beat = time.monotonic()
        while not self._inbox.empty():
            self._inbox.get()()

    def _is_open(self) -> bool:
        self._beat = time.monotonic()
        return self._close_at is None

    def _is_quiet(self) -> bool:
        return self._is_open() and self._inbox.empty()

    def _tick(self) -> None:
        """Start some requests and run one forward."""
        parked = self._weave.parked
        plan = self._planner.next(
            [entry.candidate for entry in parked.values()],
            [
                Candidate(seq, request.variant, stake=request.stake)
                for seq, request in self._waiting.items()
            ],
        )
        if not plan.urgent and not self._switch(plan):
            return
        for seq in plan.start:
            self._beat = time.monotonic()
            with self._stage("start"):
                request = self._waiting.pop(seq)
                request.times.began = time.monotonic()
                self._weave.start(request)
        if plan.batch:
            self._run(plan)

    def _run(self, plan: Plan) -> None:
        """Run one forward and resume its requests."""
        began = time.monotonic()
        batch = [self._weave.parked[seq] for seq in plan.batch]
        calls = [entry.call for entry in batch]
        lane = calls[0].lane
        limit = plan.limit
        if self._config.measure_rows and not lane.urgent:
            self._profiler.see(calls[0])
            if batch[0].request.measures:
                self._profiler.measure(self._is_open)
                limit = self._row_limit(batch[0].candidate.group)
        try:
            with self._stage(f"forward {lane.name}"):
                outputs = forward(calls, limit)
        except torch.OutOfMemoryError as exc:
            self._shrink(plan, calls, exc)
            return
        except torch.AcceleratorError:
            raise  # the device is lost
        except Exception as exc:
            self._isolate(plan, exc)
            return
        self._charge(batch, began)  # before a request is resumed to its end
        with self._stage("resume"):
            for seq, output in zip(plan.batch, outputs, strict=True):
                self._weave.resume(seq, output)
        if not lane.urgent:
            now = time.monotonic()
            self._counters.step(now, now - began, len(calls), sum(call.rows for call in calls))

    def _isolate(self, plan: Plan, error: Exception) -> None:
        """After a failed forward run each call alone, so that only the guilty one fails."""
        if len(plan.batch) == 1:
            self._weave.throw(plan.batch[0], error)
            return
        for seq in plan.batch:
            self._run(Plan(plan.variant, (), (seq,), plan.limit, plan.urgent))

    def _shrink(self, plan: Plan, calls: list[Call], error: Exception) -> None:
        """Halve the row cap; the calls stay parked, so that the next tick tries again."""
        self._counters.out_of_memory += 1
        rows = min(plan.limit, sum(call.rows for call in calls))
        torch.cuda.empty_cache()  # nothing where there is no GPU
        _log.warning("out_of_memory", rows=rows, lane=calls[0].lane.name)
        if not self._profiler.caps.halve(calls[0].lane.cap_name, calls[0].size, rows):
            failure = errors.OutOfMemory(str(error))
            failure.__cause__ = error
            for seq in plan.batch:
                self._weave.throw(seq, failure)

    def _switch(self, plan: Plan) -> bool:
        """Bring the shared modules into the plan's variant; its requests fail if that fails."""
        if plan.variant == self._variant or not (plan.start or plan.batch):
            return True
        self._variant = _UNSET
        try:
            with self._stage("switch"):
                self._activate(plan.variant)
        except Exception as exc:
            for seq in plan.start:
                self._fail(self._waiting.pop(seq), exc)
            for seq in plan.batch:
                self._weave.throw(seq, exc)
            return False
        self._variant = plan.variant
        self._counters.switches += 1
        return True

    def _row_limit(self, group: Hashable) -> int:
        assert isinstance(group, tuple), "Call.group makes tuples"
        lane, size = group[:2]
        cap = self._profiler.caps.limit(lane.cap_name, size)
        return min(cap, lane.max_rows) if lane.max_rows else cap

    def _fail(self, request: Request, error: Exception) -> None:
        """End a request that has no strand."""
        request.end(Outcome(error=error))
        self._weave.ended.append(request)

    def _hand_out(self) -> None:
        """Pass ended requests' outcomes to their clients, once they are counted."""
        for request in self._weave.ended:
            request.hand_out(_count_nothing if request.measures else self._count)
        self._weave.ended.clear()

    def _count(self, outcome: Outcome) -> None:
        if outcome.error is None:
            self._counters.succeed(time.monotonic(), 1)
        else:
            self._counters.failed += 1

    def _told(self, request: Request) -> None:
        """Drop a request that its client has cancelled; called on any thread."""
        if request.future.cancelled():
            self._inbox.put(lambda: self._drop(request))

    def _drop(self, request: Request) -> None:
        self._counters.cancelled += 1
        self._waiting.pop(request.seq, None)
        if request.seq in self._weave.parked:
            self._weave.throw(request.seq, Abandoned())

    def _abandon_all(self) -> None:
        with self._door:
            self._close_at = time.monotonic()
        while not self._inbox.empty():
            self._inbox.get()()
        left = [entry.request for entry in self._weave.parked.values()]
        for request in [*left, *self._waiting.values()]:
            self._fail(request, errors.ReplicaLost("the engine stopped"))
        self._hand_out()
        for seq in list(self._weave.parked):
            self._weave.throw(seq, Abandoned())
        self._waiting.clear()

    def _charge(self, batch: list[Parked], began: float) -> None:
        """Share the time since the last forward among the requests of this one, by their rows.

        That of the forward alone would leave out what goes with it, and on a GPU most of it: there
        a forward returns before it is done, and whoever needs its result waits.
        """
        now = time.monotonic()
        rows = sum(entry.call.rows for entry in batch)
        for entry in batch:
            spent = entry.request.spent
            spent.device_s += (now - self._charged_at) * entry.call.rows / rows
            if not entry.call.lane.urgent:
                spent.row_steps += entry.call.rows
                entry.request.times.step(began, now)
        self._charged_at = now

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self._counters.spend(name, time.monotonic() - began)


def _count_nothing(_outcome: Outcome) -> None:
    """Leave a picture out of the figures that nobody has asked for."""
