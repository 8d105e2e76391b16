"""`Graph`: what a driver needs from the deployments. Implemented by `deployments/clients.py`."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from serve_app.types import ImageSource, Job, JobResult, OutputPlan, Sight

__all__ = ["Graph"]


class Graph(Protocol):
    """Preprocess -> Generator -> Safety -> Upload as one call."""

    async def run(self, job: Job) -> JobResult:
        """Make, check and store the pictures of a job; running it twice does no harm.

        Cancelling the coroutine stops the work in every stage.

        Raises:
            errors.DreamserveError: translated; nothing else leaves.
        """
        ...

    async def progress(self, model_id: str) -> dict[int, float]:
        """Share of steps done, 0 to 1, of the jobs at work on any replica of a model."""
        ...

    async def look(self, model_id: str, watched: Mapping[int, int | None]) -> dict[int, Sight]:
        """How far those of the watched jobs are that are at work on any replica of a model.

        watched: by job id, the step of the newest preview that the caller has; -1: it has none;
        None: it wants none. Previews are made for those only who ask.
        """
        ...

    async def notify_replicas(self, model_id: str) -> frozenset[str]:
        """Ask the running replicas of a model to look up which weights are wanted.

        Returns the ids of those that heard of it; they load in the background.

        Raises:
            errors.ModelNotRunning: there are no replicas, and there will be none.
        """
        ...

    async def check(self, picture: ImageSource) -> bool:
        """Return whether the safety checker flags a client's picture.

        Raises:
            errors.DreamserveError: translated; nothing else leaves.
        """
        ...

    async def publish(self, field: str, data: bytes, plan: OutputPlan, *, crop: bool) -> None:
        """Encode a client's picture anew, or only its middle square, and store it as planned.

        Raises:
            errors.DreamserveError: translated; nothing else leaves.
        """
        ...

    async def load_s(self, model_id: str) -> float:
        """Seconds until a model is in memory, roughly; 0 for those that always are."""
        ...

    async def check_safety_runs(self) -> None:
        """Return if the safety check can answer right now.

        Raises:
            errors.SafetyCheckFailed: it has no replica that could.
        """
        ...

    async def readiness(self, model_ids: Sequence[str]) -> dict[str, bool]:
        """Per model: can it answer right now? One that would be loaded first can."""
        ...
