"""`stage`: a deployment method whose errors travel as values.

Ray would wrap a raised error, Serve would log it with a stack trace per stage, and one that does
not unpickle would lose its fields. A `StageFailure` is an ordinary result: the next stages hand it
through untouched, and the client at the end of the chain raises what is inside. What Ray and Serve
raise themselves becomes `errors.ReplicaLost` or `errors.Overloaded`.

What the log lines of the caller carry (call, job, model, span) comes along as `log_context`, beside
the arguments of a method, and is on every line of the stage.
"""

import contextlib
import functools
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import structlog
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentResponse

from serve_app import errors
from serve_app.telemetry import logging, tracing

__all__ = ["StageFailure", "last_of", "stage", "translate"]

_log = structlog.get_logger()
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class StageFailure:
    """What a stage hands on in place of its result."""

    error: errors.DreamserveError


def stage(
    method: Callable[..., Awaitable[Result]],
) -> Callable[..., Awaitable[Result | StageFailure]]:
    """Catch every error but cancellation; skip the method when an earlier stage has failed."""

    @functools.wraps(method)
    async def guarded(
        self: object,
        /,
        *args: object,
        log_context: logging.LogContext | None = None,
        **kwargs: object,
    ) -> Result | StageFailure:
        for arg in args:
            if isinstance(arg, StageFailure):
                return arg
        begun = time.perf_counter()
        with logging.bound_context(log_context or {}):
            result = await _as_value(method(self, *args, **kwargs), method.__qualname__)
            _log.info(
                "stage_done",
                stage=method.__qualname__,
                outcome=result.error.code if isinstance(result, StageFailure) else "success",
                duration_ms=round((time.perf_counter() - begun) * 1000, 1),
            )
        return result

    return guarded


async def _as_value(work: Awaitable[Result], name: str) -> Result | StageFailure:
    try:
        with tracing.span(name):
            return await work
    except errors.DreamserveError as exc:
        return StageFailure(exc)
    except Exception as exc:
        _log.exception("stage_broke", stage=name)
        return StageFailure(errors.GenerationFailed(type(exc).__name__))


async def last_of(chain: Iterator[DeploymentResponse], expected: type[Result]) -> Result:
    """Start all stages and wait for the last; whatever goes wrong cancels all of them."""
    stages: list[DeploymentResponse] = []
    try:
        stages.extend(chain)
        result: Result | StageFailure = await stages[-1]
    except BaseException as exc:  # the client left, or a stage is lost: none works for nothing
        for stage in stages:
            with contextlib.suppress(Exception):  # of a call that never reached a replica: its own
                stage.cancel()
        if isinstance(exc, Exception):
            raise translate(exc) from exc
        raise
    if isinstance(result, StageFailure):
        raise result.error
    assert isinstance(result, expected), "the last stage says what it returns"
    return result


def translate(exc: BaseException) -> errors.DreamserveError:
    """Name what Ray met, anywhere in the chain of causes.

    Whatever Ray or Serve raise themselves says that a replica, a node or an object is gone, or that
    memory ended there: the job may be run again. Only an exception of a stage's own code, which
    `stage` should have caught, is the job's failure.
    """
    seen: BaseException | None = exc
    while seen is not None:
        if isinstance(seen, BackPressureError | DeploymentUnavailableError):
            return errors.Overloaded()
        if isinstance(seen, RayTaskError):
            seen = seen.cause
            continue
        if isinstance(seen, RayError):
            return errors.ReplicaLost(type(seen).__name__)
        seen = seen.__cause__
    if isinstance(exc, RayServeException):
        return errors.ReplicaLost(type(exc).__name__)
    _log.error("stage_broke", error_class=type(exc).__name__, exc_info=exc)
    return errors.GenerationFailed(type(exc).__name__)
