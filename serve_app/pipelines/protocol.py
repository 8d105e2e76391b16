"""What the Generator deployment needs: something that paints jobs. Implemented by pipelines/."""

from collections.abc import Mapping
from typing import Protocol

from serve_app.engine.metrics import EngineSnapshot
from serve_app.fairness import PLAIN, Stake
from serve_app.types import GenerationSpec, Pictures, PreparedImages, Sight

__all__ = ["Painter"]


class Painter(Protocol):
    """Paints the pictures of a job; safe to call from many coroutines of one event loop."""

    async def paint(
        self, job_id: int, spec: GenerationSpec, images: PreparedImages | None, stake: Stake = PLAIN
    ) -> Pictures:
        """Paint all samples of a job, which share the device with others by its stake.

        Cancelling the coroutine stops the work within one denoising step.

        Raises:
            errors.InvalidRequest: the checkpoint cannot do what the spec asks.
            errors.GenerationFailed: the pipeline refused, broke, or made non-finite values.
        """
        ...

    def prefetch(self, spec: GenerationSpec) -> None:
        """Begin to load the add-ons that a job names, so that its paint finds them; a hint.

        What is wrong with them is the paint's to raise, and stays unsaid here; so does that the
        painter was closed meanwhile, or has enough to load.
        """
        ...

    def progress(self) -> dict[int, float]:
        """Share of denoising steps done, 0 to 1, of every job at work, by job id."""
        ...

    def look(self, watched: Mapping[int, int | None]) -> dict[int, Sight]:
        """How far those of the watched jobs are that are at work, by job id.

        watched: by job id, the step of the newest preview that the caller has, of which it gets
        newer ones only; -1: it has none; None: it wants none. To ask has a preview made at one of
        the next steps; without asking none are.
        """
        ...

    def snapshot(self) -> EngineSnapshot:
        """Count what is held and was done; cheap."""
        ...

    def weight_bytes(self) -> int:
        """Memory of the weights, on the device; 0: there are none."""
        ...

    def check_health(self) -> None:
        """Raise RuntimeError when the engine thread is dead or stuck, or the device is lost."""
        ...

    def close(self) -> None:
        """Stop the engine thread; jobs still at work fail. Idempotent, blocks until stopped."""
        ...
