"""`ask_all`: a quick question to every replica of a deployment."""

from typing import TypeVar

import structlog
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

__all__ = ["ask_all"]

Answer = TypeVar("Answer")

_log = structlog.get_logger()
_TIMEOUT_S = 0.5  # the call waits for a free slot of the replica; no answer will do


async def ask_all(
    deployment: DeploymentHandle | None, expected: type[Answer], method: str, *args: object
) -> list[Answer]:
    """Call a method of every replica; gives the answers of the expected type, or none at all.

    Errors are no answers. When one replica is silent, so are all: Serve waits for them together.
    """
    if deployment is None:
        return []
    try:
        answers = await deployment.broadcast(method, *args).results_async(
            timeout_s=_TIMEOUT_S, return_exceptions=True
        )
    except (RayError, RayServeException, TimeoutError) as exc:
        _log.debug("replicas_silent", method=method, reason=type(exc).__name__)
        return []
    return [answer for answer in answers if isinstance(answer, expected)]
