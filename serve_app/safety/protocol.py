"""`SafetyChecker`: one contract suite holds for every implementation."""

from typing import Protocol

from serve_app.types import Pictures, SafetyAction

__all__ = ["SafetyChecker"]


class SafetyChecker(Protocol):
    """Flags pictures and replaces those that are flagged. Fails closed."""

    def check(self, pictures: Pictures, action: SafetyAction) -> Pictures:
        """Check all pictures of a job. Blocks.

        Args:
            pictures: as painted.
            action: what a flagged picture is replaced by.

        Returns:
            The same pictures in the same order and sizes, the flagged ones replaced, with
            `nsfw` telling which those are.

        Raises:
            errors.SafetyCheckFailed: the check could not be made; nothing may leave.
        """
        ...
