"""`stage`: a deployment method whose errors travel as values.

Ray would wrap a raised error, Serve would log it with a stack trace per stage, and one that does
not unpickle would lose its fields. A `StageFailure` is an ordinary result: the next stages hand it
through untouched, and the client at the end of the chain raises what is inside. What Ray and Serve
raise themselves becomes `errors.ReplicaLost` or `errors.Overloaded`.
"""

import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Concatenate, ParamSpec, TypeVar

import structlog
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from serve_app import errors

__all__ = ["StageFailure", "stage", "translate"]

_log = structlog.get_logger()
Host = TypeVar("Host")
Params = ParamSpec("Params")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class StageFailure:
    """What a stage hands on in place of its result."""

    error: errors.DreamserveError


def stage(
    method: Callable[Concatenate[Host, Params], Awaitable[Result]],
) -> Callable[Concatenate[Host, Params], Awaitable[Result | StageFailure]]:
    """Catch every error but cancellation; skip the method when an earlier stage has failed."""

    @functools.wraps(method)
    async def guarded(
        self: Host, /, *args: Params.args, **kwargs: Params.kwargs
    ) -> Result | StageFailure:
        for arg in args:
            if isinstance(arg, StageFailure):
                return arg
        try:
            return await method(self, *args, **kwargs)
        except errors.DreamserveError as exc:
            return StageFailure(exc)
        except Exception as exc:
            _log.exception("stage_broke", stage=method.__qualname__)
            return StageFailure(errors.GenerationFailed(type(exc).__name__))

    return guarded


def translate(exc: BaseException) -> errors.DreamserveError:
    """Name what Ray met, anywhere in the chain of causes."""
    seen: BaseException | None = exc
    while seen is not None:
        if isinstance(seen, RayActorError | ObjectLostError):
            return errors.ReplicaLost(type(seen).__name__)
        if isinstance(seen, BackPressureError | DeploymentUnavailableError):
            return errors.Overloaded()
        seen = seen.cause if isinstance(seen, RayTaskError) else seen.__cause__
    _log.error("stage_broke", error_class=type(exc).__name__, exc_info=exc)
    return errors.GenerationFailed(type(exc).__name__)
