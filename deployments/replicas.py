"""`ask_all`: a quick question to every replica of a deployment."""

import structlog
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

__all__ = ["ask_all"]

_log = structlog.get_logger()
_TIMEOUT_S = 0.5  # the call waits for a free slot of the replica; no answer will do


async def ask_all(deployment: DeploymentHandle, method: str, *args: object) -> list[object]:
    """Call a method of every replica; errors stand for answers, and silent ones are left out."""
    try:
        answers: list[object] = await deployment.broadcast(method, *args).results_async(
            timeout_s=_TIMEOUT_S, return_exceptions=True
        )
    except (RayError, RayServeException, TimeoutError) as exc:
        _log.debug("replicas_silent", method=method, reason=type(exc).__name__)
        return []
    return answers
