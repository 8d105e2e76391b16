"""Stands in where no safety checkpoint is configured: asking for the check fails the job."""

from typing import NoReturn

from serve_app import errors
from serve_app.types import Pictures, SafetyAction

__all__ = ["AbsentChecker"]


class AbsentChecker:
    """Refuses every check, since pictures that nobody looked at may not leave."""

    def check(self, pictures: Pictures, action: SafetyAction) -> NoReturn:  # noqa: ARG002
        """Refuse.

        Raises:
            errors.SafetyCheckFailed: always.
        """
        raise errors.SafetyCheckFailed("no safety checkpoint is configured (safety.checkpoint)")
