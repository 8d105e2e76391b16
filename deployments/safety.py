"""Safety: every picture of a job that asked for it is checked before it is stored."""

import asyncio

from deployments.stage import stage
from serve_app.config import LoggingConfig, SafetyConfig
from serve_app.safety.absent import AbsentChecker
from serve_app.safety.protocol import SafetyChecker
from serve_app.telemetry import logging
from serve_app.types import Pictures, PreparedImages, SafetyAction

__all__ = ["Safety"]


class Safety:
    """Runs the checker in a thread."""

    def __init__(self, config: SafetyConfig, logs: LoggingConfig) -> None:
        logging.configure(logs)
        self._checker = _load_checker(config)

    @stage
    async def check(self, pictures: Pictures, action: SafetyAction) -> Pictures:
        """Flag and replace; raises `errors.SafetyCheckFailed` when the check cannot be made."""
        return await asyncio.to_thread(self._checker.check, pictures, action)

    @stage
    async def is_flagged(self, images: PreparedImages) -> bool:
        """Look at a picture of a client; raises as `check`."""
        assert images.init is not None, "Preprocess was given a picture to check"
        pictures = Pictures((images.init,), nsfw=(False,), generation_time_s=0.0, ran={})
        checked = await asyncio.to_thread(self._checker.check, pictures, SafetyAction.BLACK)
        return any(checked.nsfw)


def _load_checker(config: SafetyConfig) -> SafetyChecker:
    if config.checkpoint is None:
        return AbsentChecker()
    # torch and transformers cost memory and seconds; a replica without a checkpoint has neither.
    from serve_app.safety.diffusers_checker import DiffusersChecker  # noqa: PLC0415

    return DiffusersChecker(config.checkpoint, config.device)
