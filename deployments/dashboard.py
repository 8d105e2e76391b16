"""`Dashboard`: Serve's REST API, which `serve deploy` uses too, for the operator's commands."""

from collections.abc import Callable
from typing import TypeVar

from pydantic import JsonValue
from ray.dashboard.modules.serve.sdk import ServeSubmissionClient
from ray.serve.schema import ServeInstanceDetails

from serve_app.models.rollout import Running

__all__ = ["Dashboard"]

T = TypeVar("T")


class Dashboard:
    """The dashboard of a running Ray cluster; implements `serve_app.models.rollout.Target`.

    Raises:
        ConnectionError: nobody answers there, or it takes no token of ours, or not this file.
            All methods raise it.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._client = self._asking(lambda: ServeSubmissionClient(address))

    def look(self) -> dict[str, Running]:
        """Return the applications by name, as they are now."""
        answer = self._asking(self._client.get_serve_details)
        details = ServeInstanceDetails(**answer)
        return {
            name: Running(
                status=one.status.value,
                messages=(one.message, *(each.message for each in one.deployments.values())),
                file=answer["applications"][name]["deployed_app_config"],
            )
            for name, one in details.applications.items()
        }

    def put(self, file: dict[str, JsonValue]) -> None:
        """Deploy these applications and no others; Serve begins, and the call returns."""
        self._asking(lambda: self._client.deploy_applications(file))

    def _asking(self, question: Callable[[], T]) -> T:
        try:
            return question()
        except Exception as exc:  # Ray has no class in common for what can go wrong here
            reason = next(iter(str(exc).splitlines()), type(exc).__name__)
            text = f"the Ray dashboard at {self._address} refuses (RAY_AUTH_MODE): {reason}"
            raise ConnectionError(text) from exc
